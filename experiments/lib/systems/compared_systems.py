"""The rows of `experiments.systems`: each system with its networks, and what they took.

The processes of the parties import this too. They need no JAX, so that it is imported where it is
used.
"""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
import functools
import pathlib
from typing import Any, NamedTuple

import numpy as np

from experiments.lib.systems import system_parties, tfhe_rows
from safenet_jax.crypto.homomorphic import levelled
from safenet_jax.protocol.service import bundle
from safenet_jax.systems import cryptonets, minionn, soteria, tapas_she, xonn
from safenet_jax.systems.bit_network import BitNetwork
from safenet_jax.systems.square_network import SquareNetwork

# Weights that come with the code; --quick takes those of the small networks.
KEPT = pathlib.Path(__file__).parents[2] / 'results' / 'systems'

# Of a logit, in the mode `minionn` (`FixedPointModel.run`).
ROUNDING = 0.1

COLUMNS = (
  'network',
  'data',
  'images',
  'as plaintext',
  'test %',
  'offline s',
  'online s',
  'ms/image',
  'CPU s',
  'MB',
  'rounds',
  'beyond the result',
)


@dataclasses.dataclass(frozen=True)
class Row:
  """One network, run privately.

  name: of the file; `system`, `network` and `dataset` say what it is.
  images: that ran together when seconds were taken.
  checked: private results in all; `agreement` of them are the logits of plaintext integers, or
    within `ROUNDING` of these where the protocol rounds at random.
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
  checked: int
  agreement: int
  accuracy: float
  shown: str
  outcome: system_parties.Outcome
  details: dict[str, Any] = dataclasses.field(default_factory=dict)

  def seconds(self, *phases: str) -> float:
    """The client's seconds in these phases, its waits included."""
    rows = self.outcome.ledger['rows']
    return sum(r['wall_seconds'] for r in rows if r['party'] == 'client' and r['phase'] in phases)

  def cpu(self) -> float:
    """CPU seconds of both parties in all phases."""
    return sum(row['cpu_seconds'] for row in self.outcome.ledger['rows'])

  def _phases(self) -> dict[str, Any]:
    return self.outcome.ledger['phases']

  def record(self) -> dict[str, Any]:
    """What the file holds, JSON-like."""
    found = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != 'outcome'}
    details = found.pop('details')
    return (
      found
      | details
      | {
        'seconds': {'offline': self.seconds('setup', 'offline'), 'online': self.seconds('online')},
        'peak_memory': self.outcome.memory,
        'ledger': self.outcome.ledger,
      }
    )

  def cells(self) -> list[str]:
    """Of COLUMNS."""
    online = self.seconds('online')
    phases = self._phases().values()
    return [
      f'{self.system}, {self.network}',
      self.dataset,
      str(self.images),
      f'{self.agreement} of {self.checked}',
      f'{100 * self.accuracy:.1f}',
      f'{self.seconds("setup", "offline"):.2f}',
      f'{online:.2f}',
      f'{1e3 * online / self.images:.1f}',
      f'{self.cpu():.1f}',
      f'{sum(phase["bytes"] for phase in phases) / 1e6:.1f}',
      str(sum(phase['rounds'] for phase in phases)),
      self.shown,
    ]


# The rows of a system: of a workdir, whether --quick, and how many images (None: as it likes).
System = Callable[[pathlib.Path, bool, int | None], Iterator[Row | tfhe_rows.Modelled]]


def kept(name: str, workdir: pathlib.Path, quick: bool) -> dict[str, np.ndarray] | None:
  """A network's arrays from the workdir, or with --quick those that come with the code."""
  path = (KEPT if quick else workdir) / f'{name}.npz'
  if not path.is_file():
    return None
  with np.load(path, allow_pickle=False) as arrays:
    return dict(arrays)


def _accuracy(network: SquareNetwork | BitNetwork, images) -> float:
  """Of the plaintext integers on all test images."""
  test, labels = map(np.asarray, images.test)
  return float((network.run(test).argmax(-1) == labels).mean())


def _keep(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
  named: Any = dict(arrays)
  np.savez_compressed(path, **named)


def _cryptonets(workdir: pathlib.Path, quick: bool, count: int | None) -> Iterator[Row]:
  from safenet_jax import data
  from safenet_jax.systems import square_training

  if count is not None and count > levelled.DEGREE:
    raise ValueError(f'{count} images, want at most {levelled.DEGREE}: one in each slot')
  images = data.load('fashion_mnist')
  maps, units = (1, 10) if quick else (5, 100)
  name = 'cryptonets_small' if quick else 'cryptonets'
  arrays = kept(name, workdir, quick)
  if arrays is None:
    network = square_training.train(images, maps=maps, units=units)
    _keep(workdir / f'{name}.npz', network.arrays())
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
    checked=len(asked),
    agreement=int((outcome.answer == plain).all(axis=1).sum()),
    accuracy=_accuracy(network, images),
    shown='number of classes, size of logits',
    outcome=outcome,
    details={'plain_moduli': levelled.plain_moduli(network.bound)},
  )


class _Network(NamedTuple):
  """A binary network of a row.

  epochs: of its training.
  checked: images of a second session, which only checks.
  streamed: whether its tables come online.
  """

  name: str
  dataset: str
  epochs: int
  checked: int = 20
  streamed: bool = False


_SMALL = (_Network('bm1', 'fashion_mnist', 40), _Network('bm2', 'fashion_mnist', 40))
_CNN7 = _Network('cnn7', 'cifar10', 14, 2, True)
_TITLES = {
  'bm1': 'BM1: dense 128, 128, 10',
  'bm2': 'BM2: conv 5, dense 100, 10',
  'cnn7': 'CNN-7, a quarter of the width',
  'fashion_mnist': 'Fashion-MNIST',
  'cifar10': 'CIFAR-10',
}
# Of CNN-7, so that it trains in minutes.
_WIDTH = 0.25


def _binary(
  system: str, density: float, shown: str, workdir: pathlib.Path, quick: bool, count: int | None
) -> Iterator[Row]:
  from safenet_jax import data

  # CNN-7 is trained once: what zeros save of its gates is counted.
  large = [_CNN7] if density == 1 else []
  for wanted in _SMALL[:1] if quick else (*_SMALL, *large):
    name = f'{system.lower()}_{wanted.name}'
    images = data.load(wanted.dataset)
    network = _bits(name, wanted, images, density, workdir, quick)
    several = 1 if quick else count or wanted.checked
    agreement = 0
    for start, size in ((0, several), (several, 1)):
      asked = np.asarray(images.test.images[start : start + size])
      outcome = system_parties.run(
        functools.partial(
          xonn.client, layers=network.layers, images=asked, streamed=wanted.streamed
        ),
        functools.partial(xonn.server, network=network, images=size, streamed=wanted.streamed),
      )
      agreement += int((outcome.answer == network.run(asked)).all(axis=1).sum())
    gates = soteria.gates(network.layers)
    yield Row(
      name=name,
      system=system,
      network=_TITLES[wanted.name],
      dataset=_TITLES[wanted.dataset],
      images=1,
      checked=several + 1,
      agreement=agreement,
      accuracy=_accuracy(network, images),
      shown=shown,
      outcome=outcome,
      details={'ands': gates.ternary, 'ands_without_zeros': gates.binary, 'density': density},
    )


def _tapas_she(
  workdir: pathlib.Path, quick: bool, count: int | None
) -> Iterator[tfhe_rows.Modelled]:
  """The networks of XONN's rows; `count` does not matter, as nothing of them runs."""
  from safenet_jax import data

  measurement = tfhe_rows.gate(workdir, KEPT)
  each = measurement['cpu_seconds'] / measurement['gates']
  for wanted in _SMALL[:1] if quick else (*_SMALL, _CNN7):
    images = data.load(wanted.dataset)
    network = _bits(f'xonn_{wanted.name}', wanted, images, 1.0, workdir, quick)
    yield tfhe_rows.Modelled(
      name=f'tapas_she_{wanted.name}',
      network=_TITLES[wanted.name],
      dataset=_TITLES[wanted.dataset],
      accuracy=_accuracy(network, images),
      gates=tapas_she.gates(network.layers),
      seconds_per_gate=each,
    )


def _bits(
  name: str, wanted: _Network, images, density: float, workdir: pathlib.Path, quick: bool
) -> BitNetwork:
  """A binary network from its file, or trained and kept in the workdir."""
  arrays = kept(name, workdir, quick)
  if arrays is not None:
    return BitNetwork.of(arrays)
  network = _trained(wanted, images, density)
  _keep(workdir / f'{name}.npz', network.arrays())
  return network


def _trained(wanted: _Network, images, density: float) -> BitNetwork:
  from safenet_jax.systems import bit_training

  cifar = wanted.dataset == 'cifar10'
  architectures = {
    'bm1': bit_training.bm1(),
    'bm2': bit_training.bm2(),
    'cnn7': bit_training.cnn7(_WIDTH),
  }
  return bit_training.train(
    images,
    architectures[wanted.name],
    density=density,
    epochs=wanted.epochs,
    rate=5e-3 if cifar else 2e-3,
    padding=2 if cifar else 0,
    flip=cifar,
    report=functools.partial(_report, wanted.name),
  )


def _minionn(workdir: pathlib.Path, quick: bool, count: int | None) -> Iterator[Row]:
  from safenet_jax import data
  from safenet_jax.systems import minionn_training

  images = data.load('fashion_mnist')
  path = (KEPT if quick else workdir) / 'minionn.safenet'
  if not path.is_file():
    bundle.save(path, minionn_training.train(images, report=functools.partial(_report, 'minionn')))
  model = bundle.load(path)
  test, labels = map(np.asarray, images.test)
  plain = model.logits(test)
  several, agreement = 1 if quick else count or 20, 0
  if several >= len(test):
    raise ValueError(f'{several} images, want at most {len(test) - 1}')
  for start, size in ((0, several), (several, 1)):
    asked = test[start : start + size]
    outcome = system_parties.run(
      functools.partial(minionn.client, public=model.public, images=asked),
      functools.partial(minionn.server, model=model, images=size),
    )
    near = np.abs(outcome.answer - plain[start : start + size]) < ROUNDING
    agreement += int(near.all(axis=1).sum())
  yield Row(
    name='minionn',
    system='MiniONN',
    network='conv 16, pool, conv 16, pool, dense 100, 10',
    dataset='Fashion-MNIST',
    images=1,
    checked=several + 1,
    agreement=agreement,
    accuracy=float((plain.argmax(-1) == labels).mean()),
    shown='shape of the network, number formats',
    outcome=outcome,
  )


def _report(name: str, epoch: int, loss: float) -> None:
  print(f'{name}: epoch {epoch}, loss {loss:.3f}', flush=True)


SYSTEMS: dict[str, System] = {
  'minionn': _minionn,
  'cryptonets': _cryptonets,
  'xonn': functools.partial(_binary, 'XONN', 1.0, 'shape of the network'),
  'soteria': functools.partial(
    _binary, 'Soteria', soteria.DENSITY, 'shape of the network, which weights are 0'
  ),
  'tapas_she': _tapas_she,
}
