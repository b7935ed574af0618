"""The population benchmark on a network small enough for a test."""

from absl import flags
from absl.testing import flagsaver
import pytest

from experiments.benchmarks import population, training
from safenet_jax.search import strategy
from tests.support import small_search


@pytest.fixture(scope='module')
def rows():
  with pytest.MonkeyPatch.context() as patch, flagsaver.flagsaver():
    made = []

    def yardstick(network):
      made.append(network)
      return lambda: made.append('step')

    task, first = small_search.task()
    patch.setattr(training, 'start', lambda network, options: (first, task))
    patch.setattr(population, 'POPULATIONS', (1, 3))
    patch.setattr(training, 'PAUSE', 0.0)
    patch.setattr(population, 'COUNTED', (1, 3))
    flags.FLAGS.mark_as_parsed()
    patch.setattr(training, 'torch', 'installed')
    patch.setattr(training, 'torch_step', yardstick)
    timed = {'map': 2.0, 'vmap': 1.0, 'unroll': 3.0}
    patch.setattr(strategy, 'seconds', lambda name, *_: timed[name])
    found = {row.name: row for row in population.rows()}
  return found, made


def test_every_strategy_and_population_has_its_rows(rows):
  found, _ = rows
  assert {row.suite for row in found.values()} == {'population'}
  names = {
    f'{kind}/{name}/P{count}'
    for kind in ('train', 'compile', 'memory')
    for name in ('map', 'vmap', 'unroll')
    for count in (1, 3)
  }
  costs = {f'cost/{what}/P{count}' for what in ('flops', 'bytes') for count in (1, 3)}
  others = {'auto/P1', 'auto/P3', 'relu/P1', 'relu/P3', 'search/cnn7'}
  assert found.keys() == names | others | costs
  assert all(found[name].value > 0 and found[name].floor > 0 for name in names)
  assert 'width 0.25' in found['train/map/P3'].setting


def test_the_yardstick_trains_as_many_networks_for_as_many_steps_one_after_another(rows):
  found, made = rows
  networks = [entry for entry in made if entry != 'step']
  assert len(networks) == 1 + 3
  calls = 1 + 2 * training.REPETITIONS  # one to compile, and one before each that is timed
  assert made.count('step') == (1 + 3) * strategy.STEPS * calls
  floors = {found[f'train/{name}/P3'].floor for name in strategy.STRATEGIES}
  assert len(floors) == 1 and floors != {found['train/map/P1'].floor}


def test_what_auto_picks_stands_beside_the_fastest(rows):
  found, _ = rows
  for count in (1, 3):
    speeds = {name: found[f'train/{name}/P{count}'].value for name in strategy.STRATEGIES}
    auto = found[f'auto/P{count}']
    assert auto.floor == max(speeds.values()) and auto.value == speeds['vmap']
    assert 'auto: vmap' in auto.setting


def test_compile_time_and_memory_stand_beside_one_members_and_the_arguments(rows):
  found, _ = rows
  for name in strategy.STRATEGIES:
    one, three = (found[f'compile/{name}/P{count}'] for count in (1, 3))
    assert one.ratio == 1 and three.floor == one.value
    one, three = (found[f'memory/{name}/P{count}'] for count in (1, 3))
    # Results alone are as large as the members among the arguments.
    assert one.floor < three.floor < three.value and three.value > one.value


def test_members_share_the_teacher(rows):
  found, _ = rows
  assert found['cost/flops/P1'].ratio == found['cost/bytes/P1'].ratio == 1
  assert found['cost/flops/P3'].ratio < 0.9


def test_the_papers_search_is_arithmetic_on_the_measured_speed(rows):
  # 50 members, 180 epochs of 351 batches of 128: section 4.1 and Algorithm 1 for T = 7.
  images = 50 * 180 * 351 * 128
  assert population.search_images() == images
  found, _ = rows
  fastest = max(found[f'train/{name}/P3'].value for name in strategy.STRATEGIES)
  row = found['search/cnn7']
  assert row.value == pytest.approx(images / fastest / 3600) and row.unit == 'hours'
  assert row.floor == pytest.approx(images / found['train/map/P3'].floor / 3600)
