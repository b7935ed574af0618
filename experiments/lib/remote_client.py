"""`experiments.infer --host`: predictions of a server for images that it does not see."""

import functools
import ssl

from absl import flags
import numpy as np
import rich.console
import rich.progress
import rich.table

from experiments.lib import launcher, load_test, machine, party_flags
from safenet_jax.protocol.layers import structure
from safenet_jax.protocol.service import client as clients
from safenet_jax.transport import ledger as ledgers
from safenet_jax.transport import tls

IMAGES = flags.DEFINE_string('images', None, 'uint8 [N, H, W, C] in an .npy file, with --host.')
COUNT = flags.DEFINE_integer(
  'count',
  None,
  'How many images: of --images, all by default; without --host of the test set, '
  'secure.images by default.',
  lower_bound=1,
)
BATCH = flags.DEFINE_integer(
  'batch',
  16,
  'Images at once, which share their round trips; fewer where memory is short.',
  lower_bound=1,
)
OUTPUT = flags.DEFINE_enum(
  'output',
  'logits',
  structure.OUTPUTS,
  'What leaves the protocol, with --host: the logits, or the class alone.',
)
PREPARED = flags.DEFINE_string(
  'prepared', None, 'Directory of prepared inferences; filled when it is empty.'
)
LABELS = flags.DEFINE_string(
  'labels', None, 'Integers [N] in an .npy file: what --requests should be answered.'
)


def wanted(argv: list[str]) -> bool:
  """Whether a command line asks for a server."""
  return party_flags.asked('host', argv)


def main() -> None:
  """Prints a class for every image, and where bytes and seconds went; or loads the server."""
  images, console = _images(), rich.console.Console(stderr=True)
  address = party_flags.HOST.value or '', party_flags.PORT.value or 0
  context = functools.partial(
    _context,
    party_flags.IN_THE_CLEAR.value,
    party_flags.CA.value,
    party_flags.CERTIFICATE.value,
    party_flags.KEY.value,
  )
  bar = rich.progress.Progress(console=console, disable=not console.is_terminal)
  if load_test.REQUESTS.value:
    _load(address, context, images, bar)
    return
  ledger = ledgers.Ledger()
  with (
    clients.Client(
      *address, context=context(), directory=PREPARED.value, ledger=ledger, output=OUTPUT.value
    ) as client,
    bar,
  ):
    prepared = bar.add_task('prepare', total=max(0, len(images) - client.prepared))
    inferred = bar.add_task('infer', total=len(images))
    # Neither party has room for preparations of any number of images: batch by batch.
    size = min(BATCH.value or 1, max(client.batch, client.prepared))
    for first in range(0, len(images), size):
      batch = images[first : first + size]
      missing = max(0, len(batch) - client.prepared)
      if missing:
        client.prepare(missing)
        bar.advance(prepared, missing)
      found = client.infer(batch)
      for label in found if OUTPUT.value == 'class' else found.argmax(-1):
        print(label)
      bar.advance(inferred, len(batch))
  record = ledger.record()
  if launcher.OUT.value:
    ledgers.save(
      record
      | {
        'mode': 'client',
        'images': len(images),
        'output': OUTPUT.value,
        'memory': machine.memory()._asdict(),
      },
      launcher.OUT.value,
    )
  _summary(record, len(images), rich.console.Console(stderr=True))


def _context(
  clear: bool | None, ca: str | None, certificate: str | None, key: str | None
) -> ssl.SSLContext | None:
  return None if clear else tls.client_context(ca, certificate, key)


def _load(address: tuple[str, int], context, images: np.ndarray, bar) -> None:
  """Sends --requests, and prints how fast and how steadily they were answered."""
  labels = None
  if LABELS.value:
    labels = np.load(LABELS.value, allow_pickle=False)[: len(images)]
    if labels.dtype.kind not in 'iu' or labels.shape != (len(images),):
      raise ValueError(
        f'{LABELS.value} holds {labels.dtype} {labels.shape}, want one integer per image'
      )
  requests, count = load_test.REQUESTS.value or 1, load_test.CLIENTS.value or 1
  with bar:
    task = bar.add_task('requests', total=requests)
    found = load_test.run(
      address,
      context,
      images,
      requests=requests,
      count=count,
      done=lambda number: bar.update(task, completed=number),
    )
  quantities = found.quantities()
  for name, (value, unit) in quantities.items():
    print(f'{name}: {value:.4g} {unit}')
  agree = found.steady() if labels is None else found.agreement(labels)
  kind = 'what their image got first' if labels is None else 'the labels'
  print(f'infer: {agree} of {requests} answers to {count} clients are {kind}')
  if launcher.OUT.value:
    record = {name: value for name, (value, _) in quantities.items()}
    ledgers.save(
      record
      | {
        'mode': 'load',
        'requests': requests,
        'clients': count,
        'agree': agree,
        'seconds': found.seconds,
        'compared_with': kind,
      },
      launcher.OUT.value,
    )


def _images() -> np.ndarray:
  if not IMAGES.value:
    raise ValueError('no --images, want an .npy file of uint8 [N, H, W, C]')
  images = np.load(IMAGES.value, allow_pickle=False)
  if images.dtype != np.uint8 or images.ndim != 4:
    raise ValueError(f'{IMAGES.value} holds {images.dtype} {images.shape}, want uint8 [N, H, W, C]')
  return images[: COUNT.value]


def _summary(record: dict, images: int, console: rich.console.Console) -> None:
  """A table of the phases; seconds are of this party."""
  columns = 'phase', 'MB up', 'MB down', 'messages', 'rounds', 'wall s', 'CPU s'
  table = rich.table.Table(*columns, title=f'{images} images')
  for name, sums in record['phases'].items():
    table.add_row(
      name,
      *(f'{sums["sent"].get(party, 0) / 1e6:.2f}' for party in ('client', 'server')),
      f'{sums["messages"]:,.0f}',
      f'{sums["rounds"]}',
      f'{sums["wall_seconds"]:.2f}',
      f'{sums["cpu_seconds"]:.2f}',
    )
  console.print(table)
