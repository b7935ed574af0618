"""Private inference of test images by two processes, a server and a client.

  python -m experiments.infer --config=experiments/configs/cnn7_fashion.py --workdir=runs/demo

They are the real commands of both parties, `safenet serve` and `safenet ask`, and talk over TLS on
this machine, with a certificate that is thrown away. The client's ledger of bytes and seconds is
left in the workdir. --count says how many test images.

With --simulate both parties are simulated in this process, and the ledger of one image is left. It
is for whole test sets: --batch images at once take less time each, and there is no offline phase,
as a dealer hands out what that would make.
"""

from typing import Any

from absl import flags
import numpy as np

from experiments.lib import launcher, scores, test_sets, two_processes
from experiments.lib import served_model as planned_
from safenet_jax.crypto import randomness
from safenet_jax.fixed_point import formats
from safenet_jax.fixed_point.model import FixedPointModel, OUT_OF_RANGE
from safenet_jax.protocol.service import description, sessions
from safenet_jax.protocol.simulation import simulator
from safenet_jax.quantization import quantize
from safenet_jax.report import runs
from safenet_jax.search import members
from safenet_jax.transport import ledger as ledgers

SIMULATE = flags.DEFINE_bool(
  'simulate', False, 'Simulate both parties in this process: for whole test sets.'
)
COUNT = flags.DEFINE_integer(
  'count', None, 'How many test images, secure.images by default.', lower_bound=1
)
MODE = flags.DEFINE_enum(
  'mode', sessions.DEFAULT, list(sessions.MODES), 'How the server serves, without --simulate.'
)
BATCH = flags.DEFINE_integer(
  'batch',
  None,
  'Images at once; fewer where memory is short. By default 1, and 16 with --simulate.',
  lower_bound=1,
)


def main() -> None:
  config = launcher.CONFIG.value
  model, net, images, workdir, planned, task = planned_.served(config, writes=True)
  if not SIMULATE.value:
    description.check(model, MODE.value)  # a refusal now, and not after the report
  # On the last validation images: the first ones chose the formats, and the test set is only for
  # the one score below.
  with launcher.progress_bar('fixed point') as progress:
    report = quantize.quantization_report(
      model,
      net,
      members.variables(planned),
      members.approximation(planned, task),
      *(np.asarray(part[-config.secure.report_images :]) for part in images.validation),
      progress=lambda done, total: progress(done, total, {}),
    )
  for line in report.lines():
    print(line)
  wanted = COUNT.value or config.secure.images
  test, labels = (np.asarray(part[:wanted]) for part in images.test)
  ranges = formats.RangeReport()
  plain = model.public.classes(model.public.decode(test_sets.plain(model, test, ranges)))
  if SIMULATE.value:
    name, (classes, record) = 'ledger.json', _simulate(model, test, BATCH.value or 16)
  else:
    name, (classes, record) = runs.CLIENT_LEDGER, _ask(model, test, BATCH.value or 1, MODE.value)
  # The plaintext network's score on all test images, taken once in a run by whichever command.
  scores.tested(workdir, 'finetune', planned, task, net, images)
  agree, correct = int((classes == plain).sum()), int((classes == labels).sum())
  distrusted = int((classes == OUT_OF_RANGE).sum())
  workdir.write_json(
    name,
    record
    | {
      'images': len(test),
      'agreement': agree,
      'correct': correct,
      'fixed_point_correct': int((plain == labels).sum()),
      'out_of_range': ranges.exceeded,
      'distrusted': distrusted,
      'truncation_failure': ranges.truncation_failure,
      'quantization': report.record(),
    },
  )
  print(
    f'infer: {agree} of {len(test)} private classes equal those of the plaintext fixed-point '
    f'network, {correct} are right, {distrusted} were out of range and have none; '
    f'{_summary(record, len(test))}'
  )


def _simulate(model: FixedPointModel, images: np.ndarray, batch: int):
  """The classes of the images, and the ledger of one of them with the speed of all."""
  source = randomness.SystemRandomness()
  # The first call compiles, so it has no ledger. The ledger is that of one image.
  simulator.infer(model, images[:1], source)
  ledger = ledgers.Ledger()
  simulator.infer(model, images[:1], source, ledger=ledger)
  with launcher.progress_bar('infer') as progress:
    private = test_sets.run(model, images, source, batch=batch, report=progress)
  return model.public.classes(private.logits), ledger.record() | {
    'mode': 'simulator, offline correlations from an insecure dealer',
    'images_per_second': private.images_per_second,
  }


def _ask(model: FixedPointModel, images: np.ndarray, batch: int, mode: str):
  """The classes that the client got, and its ledger of all images."""
  answers = two_processes.ask(model, images, batch=batch, mode=mode)
  memory = {'server_memory': answers.server._asdict()}
  return np.array(answers.classes), answers.ledger | memory | {'served': mode}


def _summary(record: dict[str, Any], images: int) -> str:
  """How fast it was, in a few words."""
  if 'images_per_second' in record:
    speed = record['images_per_second']
    return f'simulated{f", {speed:.2f} images/s" if speed else ""}'
  offline, online = (record['phases'][p]['wall_seconds'] / images for p in ('offline', 'online'))
  return f'two processes took {offline:.2f} s offline and {online:.3f} s online per image'


if __name__ == '__main__':
  launcher.run(main)
