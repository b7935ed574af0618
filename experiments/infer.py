"""Private inference of test images, both parties simulated in this process.

  python -m experiments.infer --config=experiments/configs/cnn7_fashion.py --workdir=runs/demo
"""

import time

import numpy as np

from experiments import launcher
from experiments import pipeline
from safenet_jax.crypto import randomness
from safenet_jax.protocol import formats
from safenet_jax.protocol import ledger as ledgers
from safenet_jax.protocol import quantize
from safenet_jax.protocol import simulator
from safenet_jax.search import fit
from safenet_jax.search import member as members


def main() -> None:
  config = launcher.CONFIG.value
  images = pipeline.dataset(config)
  net = pipeline.network(config, images)
  workdir = launcher.workdir(config, 'model', 'data', 'pretrain', 'search', 'secure')
  pretrained = pipeline.trained(config, net, workdir, 'pretrain', 'pretrain')
  planned = pipeline.trained(config, net, workdir, 'finetune', 'search')
  task = pipeline.task(
      net, images, pipeline.training(config.search, 'finetune'), pipeline.variables(pretrained)
  )
  served = net, pipeline.variables(planned), members.approximation(planned, task)
  model = quantize.quantize(
      *served,
      np.asarray(images.validation.images[: config.secure.calibration_images]),
      mean=images.mean, std=images.std,
  )
  report = quantize.quantization_report(
      model, *served, *(np.asarray(part[: config.secure.report_images]) for part in images.test)
  )
  for line in report.lines():
    print(line)
  count = config.secure.images
  test, labels = (np.asarray(part[:count]) for part in images.test)
  ranges = formats.RangeReport()
  plain = model.run(test, ranges)

  source = randomness.SystemRandomness()
  # Compiled outside the ledger; the first image alone is the one that is counted.
  simulator.infer(model, test[:1], source)
  ledger = ledgers.Ledger()
  private = [simulator.infer(model, test[:1], source, ledger=ledger)]
  start = time.perf_counter()
  private += [simulator.infer(model, test[i : i + 1], source) for i in range(1, count)]
  seconds = time.perf_counter() - start
  classes = np.concatenate(private).argmax(-1)
  floating = fit.evaluate(planned, task, images.test.images, images.test.labels)
  workdir.write_json('ledger.json', ledger.record() | {
      'mode': 'simulator, offline correlations from an insecure dealer',
      'images': count, 'images_per_second': (count - 1) / seconds if count > 1 else None,
      'agreement': int((classes == plain.argmax(-1)).sum()),
      'correct': int((classes == labels).sum()),
      'fixed_point_correct': int((plain.argmax(-1) == labels).sum()),
      'test_accuracy': float(floating),
      'out_of_range': ranges.exceeded,
      'truncation_failure': ranges.truncation_failure,
      'quantization': report.record(),
  })
  agree = (classes == plain.argmax(-1)).sum()
  print(f'infer: {agree} of {count} private predictions equal the plaintext fixed-point network')


if __name__ == '__main__':
  launcher.run(main)
