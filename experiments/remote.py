"""`experiments.infer --host`: predictions of a server for images that it does not see."""

from absl import flags
import numpy as np
import rich.console
import rich.progress
import rich.table

from experiments import serving
from safenet_jax.protocol import client as clients
from safenet_jax.protocol import ledger as ledgers
from safenet_jax.protocol import tls

IMAGES = flags.DEFINE_string('images', None, 'uint8 [N, H, W, C] in an .npy file, with --host.')
COUNT = flags.DEFINE_integer('count', None, 'How many of --images, all by default.', lower_bound=1)
BATCH = flags.DEFINE_integer('batch', 16, 'Images that share their round trips.', lower_bound=1)
PREPARED = flags.DEFINE_string(
    'prepared', None, 'Directory of prepared inferences; filled when it is empty.'
)
OUT = flags.DEFINE_string('out', None, "JSON file for this party's ledger.")


def wanted(argv: list[str]) -> bool:
  """Whether a command line asks for a server."""
  return serving.asked('host', argv)


def main() -> None:
  """Prints a class for every image, and where bytes and seconds went."""
  context = None
  if not serving.IN_THE_CLEAR.value:
    context = tls.client_context(
        serving.CA.value, serving.CERTIFICATE.value, serving.KEY.value
    )
  images = _images()
  ledger = ledgers.Ledger()
  console = rich.console.Console(stderr=True)
  with clients.Client(
      serving.HOST.value or '', serving.PORT.value, context=context, directory=PREPARED.value,
      ledger=ledger,
  ) as client, rich.progress.Progress(console=console, disable=not console.is_terminal) as bar:
    starts = range(0, len(images), BATCH.value)
    missing = max(0, len(images) - client.prepared)
    offline = bar.add_task('prepare', total=missing)
    for first in range(0, missing, BATCH.value):
      some = min(BATCH.value, missing - first)
      client.prepare(some)
      bar.advance(offline, some)
    online = bar.add_task('infer', total=len(images))
    for first in starts:
      batch = images[first : first + BATCH.value]
      for label in client.infer(batch).argmax(-1):
        print(label)
      bar.advance(online, len(batch))
  record = ledger.record()
  if OUT.value:
    ledgers.save(record | {'mode': 'client', 'images': len(images)}, OUT.value)
  _summary(record, len(images), rich.console.Console(stderr=True))


def _images() -> np.ndarray:
  if not IMAGES.value:
    raise ValueError('no --images, want an .npy file of uint8 [N, H, W, C]')
  images = np.load(IMAGES.value, allow_pickle=False)
  if images.dtype != np.uint8 or images.ndim != 4:
    raise ValueError(f'{IMAGES.value} holds {images.dtype} {images.shape}, want uint8 [N, H, W, C]')
  return images[: COUNT.value]


def _summary(record: dict, images: int, console: rich.console.Console) -> None:
  """A table of the phases; bytes of both directions, seconds of this party."""
  columns = 'phase', 'MB', 'messages', 'rounds', 'wall s', 'CPU s'
  table = rich.table.Table(*columns, title=f'{images} images')
  for name, sums in record['phases'].items():
    table.add_row(
        name, f'{sums["bytes"] / 1e6:.2f}', f'{sums["messages"]:,.0f}', f'{sums["rounds"]}',
        f'{sums["wall_seconds"]:.2f}', f'{sums["cpu_seconds"]:.2f}',
    )
  console.print(table)
