"""The client of `experiments.serve`: a class per image, as `safenet ask` prints it.

  python -m experiments.ask --host=127.0.0.1 --port=7341 --ca=server.pem --images=images.npy

It needs no config, no workdir, no weights and no JAX.

With --output=class it asks for classes alone: then not even this client sees the logits, the
scores behind a class.

With --requests=200 --clients=2 it is a load test: two clients at once send 100 requests each, of
one image per request. It prints requests per second, percentiles of the seconds that they took,
and how many answers agree with --labels.
"""

from absl import flags

from experiments.lib import launcher, load_test, party_flags
from safenet_jax.console import ask

party_flags.define(ask.Asking)
LABELS = flags.DEFINE(
  launcher.Path(),
  'labels',
  None,
  '.npy file of integers [N]: the right classes, to compare answers to --requests with.',
)


def main() -> None:
  asking = party_flags.parsed(ask.Asking)
  if load_test.REQUESTS.value:
    requests, count = load_test.REQUESTS.value, load_test.CLIENTS.value or 1
    load_test.show(asking, requests=requests, count=count, labels=LABELS.value)
  elif LABELS.value is not None:
    raise ValueError('--labels without --requests, want both or neither')
  else:
    ask.ask(asking)


if __name__ == '__main__':
  launcher.run(main, needs_config=False)
