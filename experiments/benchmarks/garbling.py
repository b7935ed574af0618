"""Nanoseconds per AND gate beside raw AES-XTS, and the memory of garbling millions of circuits.

The gates are half-gates. The circuit is the sign test of a ReLU on 41-bit shares
without their low 12 bits, which has 28 AND gates. The floor is the cipher alone on
data that stays in the cache. It leaves out key setup, XORs, and writing or reading
messages in memory.
"""

from collections.abc import Callable, Iterator
import os
import subprocess
import sys
import time

import numpy as np

from experiments import benchmarks
from experiments.benchmarks import Row
from safenet_jax.crypto.garbled_circuits import circuits, garbling, half_gates
from safenet_jax.crypto.randomness import SystemRandomness

CIRCUIT = circuits.relu_sign(41, 12)
INSTANCES = 1 << 14
MEMORY_INSTANCES = 10_000_000
MEMORY_LIMIT = 300.0  # MB; an aim, not a measurement


def rows() -> Iterator[Row]:
  yield from _gates()
  count = 1 << 16 if benchmarks.QUICK.value else MEMORY_INSTANCES
  found = subprocess.run(
    (sys.executable, '-m', 'experiments.benchmarks.garbling', str(count)),
    capture_output=True,
    text=True,
    check=True,
  )
  yield Row(
    'garbling',
    'garble_memory',
    f'peak RSS of a process that garbles {count:,} sign tests; floor: the aim',
    float(found.stdout),
    'MB',
    MEMORY_LIMIT,
  )


def _gates() -> Iterator[Row]:
  randomness = SystemRandomness()
  garbler = garbling.Garbler(CIRCUIT, INSTANCES, randomness)
  evaluator = garbling.Evaluator(CIRCUIT, INSTANCES)
  zeros = {name: randomness.words((width, INSTANCES, 2)) for name, width in CIRCUIT.inputs}
  transferred = {'client': zeros['client']}
  share = randomness.words((dict(CIRCUIT.inputs)['server'], INSTANCES // 64)).view(np.uint8)
  tables = np.empty((CIRCUIT.and_count, 2, INSTANCES, 2), np.uint64)
  garbled, _ = garbler.garble(zeros)

  def garble() -> None:
    _, encoding = garbler.garble(transferred, tables)
    encoding.labels('server', share)

  def evaluate() -> None:
    # The labels that stand for 0 take as long as any others.
    garbled.used = False
    evaluator.evaluate(garbled, zeros)

  ands = CIRCUIT.and_count * INSTANCES
  found = benchmarks.best(
    {
      'cached': _cipher(INSTANCES, CIRCUIT.and_count, keys=1),
      'keyed': _cipher(INSTANCES, CIRCUIT.and_count, keys=CIRCUIT.and_count),
      'streamed': _cipher(ands, 1, keys=1),
      'gates': lambda: garbler.garble(zeros, tables),
      'garble': garble,
      'evaluate': evaluate,
    },
    repetitions=100,
    clock=time.process_time,
  )
  each = {name: 1e9 * seconds / ands for name, seconds in found.items()}
  size = f'{INSTANCES:,} sign tests of {CIRCUIT.and_count} ANDs'
  for name, of, blocks, setting in (
    ('garble_and', 'gates', 4, "both inputs' labels given, tables reused"),
    (
      'garble_and_with_labels',
      'garble',
      4,
      "client's labels given, server's drawn and encoded, tables reused",
    ),
    ('evaluate_and', 'evaluate', 2, 'labels and tables read from memory'),
  ):
    setting = f'{size}, {setting}; floor: {blocks} blocks of AES-XTS in cache under one key'
    yield Row('garbling', name, setting, each[of], 'ns/AND', blocks * each['cached'])
  # Two costs that garbling cannot avoid, and that its floor leaves out.
  for name, of, setting in (
    ('xts_fresh_keys', 'keyed', f'a new key for every {INSTANCES:,} blocks'),
    ('xts_from_memory', 'streamed', f'{16 * ands / 1e6:.1f} MB in one call'),
  ):
    setting = f'AES-XTS, {setting}; floor: in cache under one key'
    yield Row('garbling', name, setting, each[of], 'ns/block', each['cached'])


def _cipher(blocks: int, calls: int, keys: int) -> Callable[[], None]:
  """Encrypts so many blocks in each of the calls, under so many keys in turn."""
  data = half_gates.aligned((2 * blocks,)).view(np.uint8)
  out = half_gates.aligned((16 * blocks + 64,), np.uint8)[: 16 * blocks + 15]

  def run() -> None:
    for _ in range(keys):
      encrypt = half_gates.encryptor(os.urandom(32))
      for _ in range(calls // keys):
        encrypt(data, out)

  return run


def _peak() -> float:
  """The most memory this process has held, MB: not its parent's, as getrusage may say."""
  with open('/proc/self/status') as status:
    line = next(line for line in status if line.startswith('VmHWM'))
  return int(line.split()[1]) * 1024 / 1e6


if __name__ == '__main__':
  for _ in garbling.garble_many(CIRCUIT, int(sys.argv[1]), SystemRandomness()):
    pass
  print(_peak())
