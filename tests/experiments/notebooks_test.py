"""The notebooks run from top to bottom, and what lies here is what a run of them showed."""

import ast
import json
import pathlib
import sys

from matplotlib import pyplot as plt
import pytest

import safenet_jax as safenet
from safenet_jax import Activation, AveragePool, Conv, Dense, Flatten

FOLDER = pathlib.Path(__file__).parent.parent.parent / 'experiments/notebooks'
NETWORK = safenet.Network(
  (AveragePool(4), Conv(8), Activation(), Flatten(), Dense(16), Activation(), Dense(10)),
  (28, 28, 1),
)
SETTINGS = {
  'quickstart': {
    'network': NETWORK,
    'EPOCHS': 3,
    'POPULATION': 4,
    'ITERATIONS': 2,
    # Any plan but those that prune a whole layer.
    'DROP': 0.4,
    'TUNE_EPOCHS': 1,
    'PRIVATE': 2,
  },
  'own_network': {'FEATURES': (3, 4), 'FITTED': 1000, 'SCORED': 50, 'PRIVATE': 1},
}


def cells(name, kind='code'):
  found = json.loads((FOLDER / f'{name}.ipynb').read_text())['cells']
  return [cell for cell in found if cell['cell_type'] == kind]


def tags(cell):
  return cell['metadata'].get('tags', [])


def assigned(source):
  """The names that a cell sets."""
  nodes = ast.walk(ast.parse(source))
  return {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def execute(name):
  """The names that a notebook has defined at its end; small settings replace its own."""
  names = {'__name__': name}
  for number, cell in enumerate(cells(name)):
    source = ''.join(cell['source'])
    code = compile(source, f'{name}.ipynb, code cell {number}', 'exec')
    if 'parameters' in tags(cell):
      assert assigned(source) == set(SETTINGS[name])
      names |= SETTINGS[name]
    else:
      exec(code, names)
  plt.close('all')
  return names


@pytest.mark.filterwarnings('ignore:FigureCanvasAgg is non-interactive')
def test_quickstart_ends_in_private_inferences_that_a_plan_makes_cheaper():
  end = execute('quickstart')
  assert end['agreement'] == 2
  assert float(end['trained'].accuracy) > 0.3
  assert 0 < end['online']['planned'] < end['online']['all ReLU']


@pytest.mark.filterwarnings('ignore:FigureCanvasAgg is non-interactive')
def test_weights_of_pytorch_are_served_to_a_client_as_they_are():
  end = execute('own_network')
  assert end['difference'] < 1e-4
  assert end['agreement'] == {'all ReLU': 1, 'half squares': 1, 'all squares': 1}
  assert end['accuracies']['all ReLU'] > 0.5
  for phase in ('offline', 'online'):
    sizes = [phases[phase]['bytes'] for phases in end['phases'].values()]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize('name', SETTINGS)
def test_outputs_are_those_of_one_run_with_pictures_and_small(name):
  path = FOLDER / f'{name}.ipynb'
  assert path.stat().st_size < 300_000
  outputs = [output for cell in cells(name) for output in cell['outputs']]
  assert [cell['execution_count'] for cell in cells(name)] == list(range(1, len(cells(name)) + 1))
  assert all(output['output_type'] in ('stream', 'display_data') for output in outputs)
  assert sum('image/png' in output.get('data', {}) for output in outputs) == 2
  shown = json.dumps([output.get('text', '') for output in outputs])
  assert 'private classes' in shown and 'Error' not in shown and '/' not in shown


@pytest.mark.parametrize('name', SETTINGS)
def test_the_first_cell_installs_on_colab_only(name, monkeypatch):
  first, *_ = cells(name)
  assert tags(first) == ['install']
  commands = []
  monkeypatch.setattr('subprocess.run', lambda command, **_: commands.append(command))
  exec(''.join(first['source']), {})
  assert commands == []
  monkeypatch.setitem(sys.modules, 'google.colab', object())
  exec(''.join(first['source']), {})
  (command,) = commands
  assert command[1:4] == ['-m', 'pip', 'install'] and command[-1].endswith('.whl[report,serve]')
