"""Trains a hand-written plan, without any search, beside an all-ReLU control.

  python -m experiments.finetune --config=... --workdir=... --plan=plan.json

The control is the pretrained network with all its ReLUs, trained for as many more epochs. A plan is
{"network": "cnn7", "ratio": [10, ...], "degree": [2, ...]}. For every activation layer, `ratio`
says how many twentieths of its channels are replaced. `degree` is that of the polynomial in their
place: 2 or 3, or 0 to remove the channels.

The settings are those of section `finetune` of the config. `epochs` and `learning_rate` say how
long and how fast it trains. In the first `warmup_epochs` the learning rate rises. In the first
`anneal_epochs` the replaced channels go from ReLU to the polynomial. Every option of
`search.training.Training` is a key, too. It has the value of the same key of section `search` until
it is set, for example

  --config.finetune.coefficient_rate=1 --config.finetune.clip_norm=0 (off)
  --config.finetune.range_penalty=0 (off) --config.finetune.leading_floor=0.01
  --config.finetune.distillation=0 (off) --config.finetune.per_channel=True
  --config.finetune.range_clip=8
"""

import functools

from absl import flags

from experiments.lib import controls, from_config, launcher
from safenet_jax.approximation import plans
from safenet_jax.models import network as networks
from safenet_jax.search import fit, members

PLAN = flags.DEFINE(launcher.Path(), 'plan', None, 'The plan.json to train.')


def main() -> None:
  config = launcher.CONFIG.value
  images = from_config.dataset(config)
  net = from_config.network(config, images)
  if not PLAN.value:
    raise ValueError('no --plan, want --plan=plan.json')
  channels = networks.activation_channels(net)
  plan = plans.load(PLAN.value, config.model.name, len(channels))
  ranks = plans.load_ranks(PLAN.value, channels)
  from_config.check_served(net, plan)
  # Refuses a batch that is too large before anything is written.
  fit.steps_per_epoch(len(images.train.labels), config.finetune.batch_size)
  workdir = launcher.workdir(config, *from_config.SECTIONS)
  learned = {} if ranks is None else {'ranks': [rank.tolist() for rank in ranks]}
  workdir.claim({'plan': plans.record(plan, config.model.name, **learned)})
  first = from_config.trained(config, net, workdir, 'pretrain')
  options = from_config.training(config.finetune)
  planned = members.restart(members.fitted(first, net, images), 0.0, net, options)
  planned = planned.replace(plan=plan)
  lend = functools.partial(controls.lend, config, workdir)
  from_config.finish(
    config, images, net, first, planned, workdir, searched=0, ranks=ranks, lend=lend
  )


if __name__ == '__main__':
  launcher.run(main)
