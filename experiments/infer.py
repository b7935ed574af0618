"""Private inference of test images, both parties simulated in this process.

  python -m experiments.infer --config=experiments/configs/cnn7_fashion.py --workdir=runs/demo

--count says how many test images, --batch how many of them at once at most. The ledger of bytes
and seconds is left in the workdir. With --two_processes the real commands of both parties,
`safenet serve` and `safenet ask`, talk over TLS instead, and the client's ledger is left in the
workdir. Then --batch=1 asks for one image after another.
"""

from absl import flags
import numpy as np

from experiments.lib import launcher, scores, test_sets, two_processes
from experiments.lib import served_model as planned_
from safenet_jax.crypto import randomness
from safenet_jax.fixed_point import formats, quantize
from safenet_jax.protocol.simulation import simulator
from safenet_jax.report import runs
from safenet_jax.search import members
from safenet_jax.transport import ledger as ledgers

TWO_PROCESSES = flags.DEFINE_bool(
  'two_processes', False, 'Ask a server process over TLS instead of simulating both parties.'
)
COUNT = flags.DEFINE_integer(
  'count', None, 'How many test images, secure.images by default.', lower_bound=1
)
BATCH = flags.DEFINE_integer(
  'batch', 16, 'Images at once; fewer where memory is short.', lower_bound=1
)


def main() -> None:
  config = launcher.CONFIG.value
  model, net, images, workdir, planned, task = planned_.served(config, writes=True)
  # On the last validation images: the first ones chose the formats, and the test set is only for
  # the one score below.
  report = quantize.quantization_report(
    model,
    net,
    members.variables(planned),
    members.approximation(planned, task),
    *(np.asarray(part[-config.secure.report_images :]) for part in images.validation),
  )
  for line in report.lines():
    print(line)
  wanted = COUNT.value or config.secure.images
  test, labels = (np.asarray(part[:wanted]) for part in images.test)
  count, ranges = len(test), formats.RangeReport()
  plain = test_sets.plain(model, test, ranges)
  if TWO_PROCESSES.value:
    _ask(model, test, labels, plain.argmax(-1), workdir)
    return

  source = randomness.SystemRandomness()
  # The first call compiles, so it has no ledger. The ledger is that of one image.
  simulator.infer(model, test[:1], source)
  ledger = ledgers.Ledger()
  simulator.infer(model, test[:1], source, ledger=ledger)
  with launcher.progress_bar('infer') as progress:
    private = test_sets.run(model, test, source, batch=BATCH.value or 1, report=progress)
  classes, speed = private.logits.argmax(-1), private.images_per_second
  # The plaintext network's score on all test images, taken once in a run by whichever command.
  scores.tested(workdir, 'finetune', planned, task, net, images)
  workdir.write_json(
    'ledger.json',
    ledger.record()
    | {
      'mode': 'simulator, offline correlations from an insecure dealer',
      'images': count,
      'images_per_second': speed,
      'agreement': int((classes == plain.argmax(-1)).sum()),
      'correct': int((classes == labels).sum()),
      'fixed_point_correct': int((plain.argmax(-1) == labels).sum()),
      'out_of_range': ranges.exceeded,
      'truncation_failure': ranges.truncation_failure,
      'quantization': report.record(),
    },
  )
  agree = (classes == plain.argmax(-1)).sum()
  print(
    f'infer: {agree} of {count} private predictions equal the plaintext fixed-point network'
    f'{f", {speed:.2f} images/s simulated" if speed else ""}'
  )


def _ask(model, images, labels, plain, workdir) -> None:
  """Two processes: their classes beside those of the fixed-point network and the labels."""
  answers = two_processes.ask(model, images, batch=BATCH.value or 1)
  found = np.array(answers.classes)
  workdir.write_json(
    runs.CLIENT_LEDGER,
    answers.ledger
    | {
      'agreement': int((found == plain).sum()),
      'correct': int((found == labels).sum()),
      'fixed_point_correct': int((plain == labels).sum()),
      'server_memory': answers.server._asdict(),
    },
  )
  phases = answers.ledger['phases']
  offline, online = (phases[phase]['wall_seconds'] / len(found) for phase in ('offline', 'online'))
  print(
    f'infer: {(found == plain).sum()} of {len(found)} private classes of two processes equal '
    f'the plaintext fixed-point network, {(found == labels).sum()} are right; '
    f'{offline:.2f} s offline and {online:.3f} s online per image'
  )


if __name__ == '__main__':
  launcher.run(main)
