"""Serves private inference of a run's planned network until SIGTERM or Ctrl-C.

  python -m experiments.serve --config=experiments/configs/cnn7_fashion.py --workdir=runs/demo \
    --host=127.0.0.1 --port=7341 --certificate=server.pem --key=server_key.pem

With --bundle=FILE it serves a file of `experiments.export`, as `safenet serve` does; then it needs
no config, no workdir and no JAX. --insecure_test_certificate=DIR writes a certificate for --host
that signs itself, and its key, and serves with them. With --outputs=class clients get classes
alone, and never the logits, the scores behind a class. Logs are lines of key=value on standard
error.
"""

from absl import flags

from experiments.lib import launcher, party_flags
from safenet_jax.console import serve
from safenet_jax.fixed_point.model import FixedPointModel
from safenet_jax.protocol.service import bundle as bundles

BUNDLE = flags.DEFINE(
  launcher.Path(), 'bundle', None, 'File of experiments.export to serve, instead of a run.'
)
party_flags.define(serve.Serving)


def _model() -> FixedPointModel:
  if BUNDLE.value:
    return bundles.load(BUNDLE.value)
  # Imported here, because it imports JAX, which a bundle is served without.
  from experiments.lib import served_model

  return served_model.served(launcher.CONFIG.value).model


def main() -> None:
  if BUNDLE.value == '':
    raise ValueError('--bundle is empty, want a file of experiments.export')
  if BUNDLE.value and launcher.CONFIG.value is not None:
    raise ValueError('--bundle and --config, want one of them')
  serve.serve(_model, party_flags.parsed(serve.Serving))


if __name__ == '__main__':
  launcher.run(main, instead='bundle')
