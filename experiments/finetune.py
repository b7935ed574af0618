"""Trains a hand-written plan, without any search, beside an all-ReLU control.

  python -m experiments.finetune --config=... --workdir=... --plan=plan.json

The plan is {"network": "cnn7", "ratio": [10, ...], "degree": [2, ...]}: twentieths of the
channels and 0, 2 or 3 for every activation layer. `search.finetune_epochs` and `finetune_rate`
set how long and how fast; `finetune_anneal_epochs` blends ReLU out over the first epochs,
`finetune_warmup_epochs` warms the rate up, and `finetune_<option>` is any option of
`search.training.Training`, for example

  --config.search.finetune_coefficient_rate=1 --config.search.finetune_clip_norm=0 (off)
  --config.search.finetune_range_penalty=0 (off) --config.search.finetune_leading_floor=0.01
  --config.search.finetune_distillation=0 (off) --config.search.finetune_per_channel=True
  --config.search.finetune_range_clip=8
"""

from absl import flags

from experiments.lib import from_config, launcher
from safenet_jax.approximation import plan as plans
from safenet_jax.models import network as networks
from safenet_jax.search import member as members

PLAN = flags.DEFINE_string('plan', None, 'The plan.json to train.')


def main() -> None:
  config = launcher.CONFIG.value
  images = from_config.dataset(config)
  net = from_config.network(config, images)
  if not PLAN.value:
    raise ValueError('no --plan, want --plan=plan.json')
  plan = plans.load(PLAN.value, config.model.name, len(networks.activation_channels(net)))
  workdir = launcher.workdir(config, 'model', 'data', 'teacher', 'pretrain', 'search')
  workdir.claim({'plan': plans.record(plan, config.model.name)})
  first = from_config.trained(config, net, workdir, 'pretrain', 'pretrain')
  options = from_config.training(config.search, 'finetune')
  planned = members.restart(from_config.fitted(first, net, images), 0.0, net, options)
  planned = planned.replace(plan=plan)
  from_config.finish(config, net, images, workdir, first, planned, searched=0)


if __name__ == '__main__':
  launcher.run(main)
