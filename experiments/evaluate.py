"""Scores a finished phase on the test or validation images.

  python -m experiments.evaluate --config=... --workdir=... --phase=finetune --split=test

The result is appended to evaluations.json in the workdir. The test images are scored once per
phase. A second time needs --force, and its result is marked as repeated.
"""

from absl import flags

from experiments import thin
from experiments.lib import from_config, launcher, scores
from safenet_jax.search import members
from safenet_jax.search.members import Task

PHASE = flags.DEFINE_enum(
  'phase', 'finetune', ['pretrain', *from_config.TUNED, 'thin'], 'Whose network is scored.'
)
SPLIT = flags.DEFINE_enum('split', 'test', ['test', 'validation'], 'The images to score it on.')
FORCE = flags.DEFINE_boolean(
  'force', False, 'Score the test images although they have scored this phase before.'
)


def main() -> None:
  config = launcher.CONFIG.value
  phase, split = PHASE.value, SPLIT.value
  images = from_config.dataset(config)
  net = from_config.network(config, images)
  sections = from_config.SECTIONS[:4] if phase == 'pretrain' else from_config.SECTIONS
  workdir = launcher.workdir(config, *sections)
  folder, trained_as = workdir, phase
  if phase == 'thin':
    config, net, folder, _ = thin.of(config, images, workdir)
    folder.read_json('thin.json', 'thin')
    trained_as = 'control'
  elif phase in from_config.TUNED:
    # plan.json is there once both phases are finished. How long the control trains is not in the
    # config.
    workdir.read_json('plan.json', 'search or finetune')
  member = from_config.trained(config, net, folder, trained_as)
  pretrained = from_config.trained(config, net, folder, 'pretrain')
  options = from_config.training(from_config.section(config, trained_as))
  if phase == 'finetune':
    task = from_config.planned_task(net, images, pretrained, options, workdir)
  else:
    task = Task.of(net, images, members.variables(pretrained), options)
  record = scores.score(workdir, phase, split, member, task, net, images, FORCE.value)
  print(f'evaluate: {phase} {record["accuracy"]:.2%} on {record["images"]} {split} images')


if __name__ == '__main__':
  launcher.run(main)
