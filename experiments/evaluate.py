"""Scores a finished phase on the test or validation images.

  python -m experiments.evaluate --config=... --workdir=... --phase=finetune --split=test

The result is appended to evaluations.json. The test images are scored once per phase: a second
time needs --force, and is marked.
"""

from absl import flags

from experiments import launcher
from experiments import pipeline
from safenet_jax.search import fit

PHASE = flags.DEFINE_enum(
  'phase', 'finetune', ['pretrain', *pipeline.TUNED], 'Whose network is scored.'
)
SPLIT = flags.DEFINE_enum('split', 'test', ['test', 'validation'], 'The images to score it on.')
FORCE = flags.DEFINE_boolean('force', False, 'Score the test images once more.')


def main() -> None:
  config = launcher.CONFIG.value
  phase, split = PHASE.value, SPLIT.value
  images = pipeline.dataset(config)
  net = pipeline.network(config, images)
  section = 'search' if phase in pipeline.TUNED else 'pretrain'
  workdir = launcher.workdir(config, 'model', 'data', *dict.fromkeys(('pretrain', section)))
  if phase in pipeline.TUNED:
    # Written when both are finished; the control's length is not in the config.
    workdir.read_json('plan.json', 'search or finetune')
  member = pipeline.trained(config, net, workdir, phase, section)
  pretrained = pipeline.trained(config, net, workdir, 'pretrain', 'pretrain')

  name = 'evaluations.json'
  earlier = workdir.read_json(name, 'evaluate') if (workdir / name).exists() else []
  seen = [record for record in earlier if (record['phase'], record['split']) == (phase, split)]
  repeated = split == 'test' and bool(seen)
  if repeated and not FORCE.value:
    raise ValueError(
      f'the test images have scored {phase} already ({seen[0]["accuracy"]:.2%}): '
      'numbers chosen on them are no test; --force scores them again and marks it'
    )
  # In float32 everywhere: that network is the one that is served.
  options = pipeline.training(config[section], phase)
  task = pipeline.task(net, images, options, pipeline.variables(pretrained))
  task = task.replace(network=net)
  accuracy = float(fit.evaluate(member, task, *getattr(images, split)))
  record = {
    'phase': phase, 'split': split, 'images': len(getattr(images, split).labels),
    'accuracy': accuracy, 'repeated': repeated,
  }
  workdir.write_json(name, [*earlier, record])
  print(f'evaluate: {phase} {accuracy:.2%} on {record["images"]} {split} images')


if __name__ == '__main__':
  launcher.run(main)
