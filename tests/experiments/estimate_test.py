"""`describe --plan`, and the suite that measures what it takes for its seconds."""

import json
import re

from absl import flags
from absl.testing import flagsaver
import pytest

from experiments import benchmarks
from experiments.benchmarks import units
from safenet_jax.approximation import plans
from safenet_jax.models import architectures
from safenet_jax.protocol.estimate import estimate as estimates
from safenet_jax.protocol.estimate import links, unit_costs, untrained
from safenet_jax.protocol.service import sessions
from tests.experiments import commands_test
from tests.support import models

CONFIG = '--config=experiments/configs/cnn7_cifar10.py', '--config.model.width=0.125'


@pytest.fixture(scope='module')
def plan(tmp_path_factory):
  path = tmp_path_factory.mktemp('plan') / 'plan.json'
  degrees = [2, 0, 3, 2, 2, 2, 3]
  path.write_text(json.dumps({'network': 'cnn7', 'ratio': [10] * 7, 'degree': degrees}))
  return path


def test_a_plan_is_estimated_layer_by_layer_and_in_all(plan):
  found = commands_test.run('describe', *CONFIG, f'--plan={plan}').stdout
  lines = [line.strip() for line in found.splitlines()]
  assert re.fullmatch(r'activations: \d+', lines[-1])
  rows = {line.split()[0]: line.split()[1:] for line in lines if line}
  # Both tables have a row of this name: this is the second one's, of the estimate.
  assert len(rows['activation1']) == 6 and len(rows['conv3']) == 6
  up, down, spent = map(float, rows['conv1'][:3])
  assert up > 0 and down > 0 and spent > 0 and float(rows['conv1'][3]) == 0
  layers = [
    line
    for line in lines
    if re.match(r'(conv\d|activation\d|dense0|all layers|image, logits) .*\.\d{3} ', line)
  ]
  (online,) = (line for line in lines if re.match('online ', line))
  sums = [sum(float(line.split()[column]) for line in layers) for column in (-3, -2)]
  assert sums == pytest.approx([float(n) for n in online.split()[1:3]], abs=0.02)
  (both,) = (line for line in lines if re.match('offline and online ', line))
  *_, here, lan, wan = map(float, both.split()[3:])
  # Eight online round trips and three offline, and all bytes at a tenth of the bandwidth.
  assert here < lan < wan and wan - lan > 10 * 0.039
  assert any(re.fullmatch(r'memory at most: client \d+ MB, server \d+ MB', line) for line in lines)
  assert sum(line.startswith('assumed: ') for line in lines) == 3


def test_modes_are_compared_over_a_link(plan):
  found = commands_test.run('describe', *CONFIG, f'--plan={plan}', '--link=50e6,0.1').stdout
  *_, table = found.split('every mode over ')
  rows = {line.split()[0]: line.split()[1:] for line in table.splitlines() if line.strip()}
  net = architectures.cnn7(width=0.125)
  public = untrained.model(net, plans.load(plan, 'cnn7', 7)).public
  slow, both = links.Link('', 50e6, 0.1), {}
  for mode in sessions.MODES:
    each = estimates.inference(public, mode)
    both[mode] = each.seconds('offline', slow) + each.seconds('online', slow)
    assert float(rows[mode][-1]) == pytest.approx(both[mode], abs=0.01)
    assert float(rows[mode][1]) == pytest.approx(each.bytes('offline') / 1e6, abs=0.01)
  assert f'50 Mbit/s, 100 ms: {min(both, key=both.get)}; online alone: ' in table


def test_costs_of_another_machine_replace_the_default(plan, tmp_path):
  slow = unit_costs.DEFAULT._replace(
    seconds={name: 5 * value for name, value in unit_costs.DEFAULT.seconds.items()}
  )
  path = tmp_path / 'costs.json'
  path.write_text(json.dumps({'unit_costs': slow._asdict()}))
  found = commands_test.run(
    'describe', *CONFIG, f'--plan={plan}', f'--costs={path}', '--mode=gazelle'
  ).stdout
  here = float(re.search('^ *offline and online .*', found, re.M)[0].split()[-3])
  net = architectures.cnn7(width=0.125)
  public = untrained.model(net, plans.load(plan, 'cnn7', 7)).public
  wanted = estimates.inference(public, 'gazelle', slow)
  assert here == pytest.approx(wanted.seconds('offline') + wanted.seconds('online'), abs=0.02)


def test_bad_input_is_one_line_and_code_2(plan, tmp_path):
  other = tmp_path / 'plan.json'
  other.write_text(json.dumps({'network': 'vgg16', 'ratio': [0] * 7, 'degree': [2] * 7}))
  for arguments, message in (
    ((f'--plan={other}',), 'is a plan for vgg16, want one for cnn7'),
    ((f'--plan={tmp_path / "none"}',), 'no plan at'),
    ((f'--plan={plan}', f'--costs={other}'), 'has no unit costs'),
    ((f'--costs={other}',), '--costs without --plan'),
  ):
    found = commands_test.run('describe', *CONFIG, *arguments, code=2)
    assert message in found.stderr and found.stderr.count('\n') == 1


def test_measured_units_are_what_an_estimate_takes():
  """On the smallest network, whose rows are an honest measurement of nothing."""
  flags.FLAGS(['test'], known_only=True)
  with flagsaver.flagsaver(quick=True):
    rows = list(units.rows())
  names = [row.name for row in rows]
  assert len(names) == len(set(names)) and all(row.value >= 0 for row in rows)
  costs = unit_costs.UnitCosts(
    *(
      {row.name.removeprefix(prefix): row.value for row in rows if row.name.startswith(prefix)}
      for prefix in benchmarks.UNIT_COSTS.values()
    )
  )
  assert costs.seconds.keys() == unit_costs.DEFAULT.seconds.keys()
  assert costs.memory.keys() == unit_costs.DEFAULT.memory.keys()
  # No party had JAX in it.
  assert 20e6 < costs.memory['process'] < 120e6
  for mode in ('delphi', 'gazelle', 'ot'):
    assert estimates.inference(models.calibrated().public, mode, costs).seconds('offline') > 0
