"""TAPAS and SHE in `experiments.systems`: gates counted, times the time of one gate.

With --tfhe_python a small network runs whole under TFHE, which gives that time. Else the time that
is kept in experiments/results/systems is taken.
"""

import dataclasses
import json
import pathlib
import subprocess
from typing import Any

from absl import flags
import numpy as np

from experiments.lib import launcher, machine
from safenet_jax import atomic_files
from safenet_jax.crypto.garbled_circuits import circuits
from safenet_jax.systems import tapas_she
from safenet_jax.systems.bit_network import BitNetwork, Secret, Sums, Window

TFHE_PYTHON = flags.DEFINE(
  launcher.Path(),
  'tfhe_python',
  None,
  'A Python that has concrete-python, to measure a gate under TFHE with. Without it the kept time '
  'of a gate is taken.',
)
_GATE = 'tfhe_gate'


@dataclasses.dataclass(frozen=True)
class Modelled:
  """One network under TFHE: a model, as its gates did not run."""

  name: str
  network: str
  dataset: str
  accuracy: float
  gates: int
  seconds_per_gate: float

  def record(self) -> dict[str, Any]:
    """What the file holds, JSON-like."""
    seconds = self.gates * self.seconds_per_gate
    return dataclasses.asdict(self) | {'system': 'TAPAS, SHE', 'modelled_cpu_seconds': seconds}

  def cells(self) -> list[str]:
    """Of `compared_systems.COLUMNS`."""
    seconds = self.gates * self.seconds_per_gate
    return [
      f'TAPAS, SHE, {self.network}',
      self.dataset,
      '1',
      'modelled',
      f'{100 * self.accuracy:.1f}',
      '-',
      f'modelled {seconds:,.0f}',
      '-',
      f'modelled {seconds:,.0f}',
      '-',
      '1',
      'shape of the network',
    ]


def gate(workdir: pathlib.Path, kept: pathlib.Path) -> dict[str, Any]:
  """A measurement of one gate: new with --tfhe_python, else from the workdir or what is kept."""
  path = workdir / f'{_GATE}.json'
  if TFHE_PYTHON.value:
    atomic_files.write_json(path, measured(TFHE_PYTHON.value) | machine.record())
  elif not path.is_file():
    path = kept / f'{_GATE}.json'
  return json.loads(path.read_text())


def small() -> BitNetwork:
  """Dense layers of 4 and 3 on 4 x 4 pixels; the first layer says whether a pixel is bright."""
  random = np.random.default_rng(0)
  layers = Sums(Window(4, 4, 1, 1), 1), Sums(Window(4, 4, 1), 4), Sums(Window(1, 1, 4), 3)
  secrets = [Secret(np.ones((1, 1), np.uint8), np.zeros(1, np.int64))]
  for layer, limits in zip(layers[1:], ([8, 7, 9, 8], [0, 1, 0])):
    signs = random.integers(0, 2, (layer.outputs, layer.inputs)).astype(np.uint8)
    secrets.append(Secret(signs, np.array(limits)))
  return BitNetwork(layers, tuple(secrets))


def measured(python: str) -> dict[str, Any]:
  """Runs the small network whole under TFHE, on one image of Fashion-MNIST made 4 x 4.

  Raises:
    RuntimeError: that Python has no concrete-python, or the result is not that of plaintext.
  """
  from safenet_jax import data

  image = np.asarray(data.load('fashion_mnist').test.images[:1])
  image = image.reshape(1, 4, 7, 4, 7, 1).max(axis=(2, 4))
  network = small()
  circuit = tapas_she.whole(network)
  bits = BitNetwork(network.layers[:1], network.secrets[:1]).bits(image)[:, 0]
  asked = {
    'values': bits.tolist(),
    'gates': [[g.op, *g.left, *g.right] for g in circuit.gates],
    'outputs': [list(bit) for bit in circuit.outputs if isinstance(bit, circuits.Wire)],
  }
  script = pathlib.Path(__file__).with_name('tfhe_party.py')
  found = subprocess.run(
    [python, str(script)], input=json.dumps(asked), capture_output=True, text=True
  )
  if found.returncode:
    last = (found.stderr.splitlines() or ['it said nothing'])[-1]
    raise RuntimeError(f'--tfhe_python={python}: {last}')
  result = json.loads(found.stdout.splitlines()[-1])
  given = iter(result['outputs'])
  values = [bit if isinstance(bit, bool) else next(given) for bit in circuit.outputs]
  words = np.array(values, np.int64).reshape(3, -1)
  scores = (words << np.arange(words.shape[1])).sum(axis=1)
  if scores.tolist() != network.run(image)[0].tolist():
    raise RuntimeError(f'scores {scores.tolist()} under TFHE, want those of plaintext')
  return {
    'gates': len(circuit.gates),
    'seconds': result['seconds'],
    'cpu_seconds': result['cpu_seconds'],
    'scores': scores.tolist(),
  }
