"""The rows of `experiments.systems`: each system with its networks, and what they took.

The processes of the parties import this too. They need no JAX, so that it is imported where it is
used.
"""

from collections.abc import Callable, Iterator
import dataclasses
import functools
import pathlib
from typing import Any

import numpy as np

from experiments.lib import system_parties
from safenet_jax.crypto.homomorphic import levelled
from safenet_jax.systems import cryptonets
from safenet_jax.systems.square_network import SquareNetwork

# Weights that come with the code; --quick takes those of the small networks.
KEPT = pathlib.Path(__file__).parents[1] / 'results' / 'systems'

COLUMNS = (
  'network',
  'data',
  'images',
  'as plaintext',
  'test %',
  'offline s',
  'online s',
  'ms/image',
  'MB',
  'rounds',
  'beyond the result',
)


@dataclasses.dataclass(frozen=True)
class Row:
  """One network, run privately.

  name: of the file; `system`, `network` and `dataset` say what it is.
  images: that ran together; `agreement` of them have the logits of plaintext integers.
  accuracy: of the plaintext integers on the test images.
  shown: what the parties learn beside the result, in one phrase.
  outcome: of both parties.
  details: what only some systems have, such as gates.
  """

  name: str
  system: str
  network: str
  dataset: str
  images: int
  agreement: int
  accuracy: float
  shown: str
  outcome: system_parties.Outcome
  details: dict[str, Any] = dataclasses.field(default_factory=dict)

  def seconds(self, *phases: str) -> float:
    """The client's seconds in these phases, its waits included."""
    rows = self.outcome.ledger['rows']
    return sum(r['wall_seconds'] for r in rows if r['party'] == 'client' and r['phase'] in phases)

  def _phases(self) -> dict[str, Any]:
    return self.outcome.ledger['phases']

  def record(self) -> dict[str, Any]:
    """What the file holds, JSON-like."""
    found = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != 'outcome'}
    return found | {
      'seconds': {'offline': self.seconds('setup', 'offline'), 'online': self.seconds('online')},
      'peak_memory': self.outcome.memory,
      'ledger': self.outcome.ledger,
    }

  def cells(self) -> list[str]:
    """Of COLUMNS."""
    online = self.seconds('online')
    phases = self._phases().values()
    return [
      f'{self.system}, {self.network}',
      self.dataset,
      str(self.images),
      f'{self.agreement} of {self.images}',
      f'{100 * self.accuracy:.1f}',
      f'{self.seconds("setup", "offline"):.2f}',
      f'{online:.2f}',
      f'{1e3 * online / self.images:.1f}',
      f'{sum(phase["bytes"] for phase in phases) / 1e6:.1f}',
      str(sum(phase['rounds'] for phase in phases)),
      self.shown,
    ]


# The rows of a system: of a workdir, whether --quick, and how many images (None: as it likes).
System = Callable[[pathlib.Path, bool, int | None], Iterator[Row]]


def kept(name: str, workdir: pathlib.Path, quick: bool) -> dict[str, np.ndarray] | None:
  """A network's arrays from the workdir, or with --quick those that come with the code."""
  path = (KEPT if quick else workdir) / f'{name}.npz'
  if not path.is_file():
    return None
  with np.load(path, allow_pickle=False) as arrays:
    return dict(arrays)


def _cryptonets(workdir: pathlib.Path, quick: bool, count: int | None) -> Iterator[Row]:
  from safenet_jax import data
  from safenet_jax.systems import square_training

  images = data.load('fashion_mnist')
  maps, units = (1, 10) if quick else (5, 100)
  name = 'cryptonets_small' if quick else 'cryptonets'
  arrays = kept(name, workdir, quick)
  if arrays is None:
    network = square_training.train(images, maps=maps, units=units)
    np.savez_compressed(workdir / f'{name}.npz', **network.arrays())
  else:
    network = SquareNetwork.of(arrays)
  # Test images first. Others fill the slots: the time is the same.
  asked = np.concatenate([images.test.images, images.validation.images, images.train.images])
  asked = asked[: count or levelled.DEGREE]
  outcome = system_parties.run(
    functools.partial(cryptonets.client, public=network.public, images=asked),
    functools.partial(cryptonets.server, network=network),
  )
  plain = network.run(asked)
  yield Row(
    name=name,
    system='CryptoNets',
    network=f'conv {maps}, square, dense {units}, square, dense 10',
    dataset='Fashion-MNIST',
    images=len(asked),
    agreement=int((outcome.answer == plain).all(axis=1).sum()),
    accuracy=float((network.run(images.test.images).argmax(-1) == images.test.labels).mean()),
    shown='nothing',
    outcome=outcome,
    details={'plain_moduli': levelled.plain_moduli(network.bound)},
  )


SYSTEMS: dict[str, System] = {'cryptonets': _cryptonets}
