"""A sweep from its settings to its figures, with the phases played by their results."""

import csv
import json
import types

import pytest

from experiments import pareto
from experiments.configs import cnn7_fashion, planners
from safenet_jax.workdir import Workdir

SETTINGS = [
  {'seed': seed, 'search.algorithm': algorithm}
  for algorithm in ('btpbt', 'pbt')
  for seed in range(2)
]


@pytest.mark.parametrize(
  'overrides, message',
  [
    ({'seed': -1}, r"sweep\(add\) with {'seed': -1}: seed -1, want an integer"),
    ({'search.algorithm': 'annealing'}, 'search.algorithm .annealing., want one of btpbt'),
    ({'search.populaton': 3}, 'populaton'),
  ],
)
def test_a_setting_that_its_run_would_refuse_is_refused_before_any_run(
  sweep, monkeypatch, overrides, message
):
  root, calls, run = sweep
  monkeypatch.setattr(pareto, 'settings', lambda path: [*SETTINGS, overrides])
  with pytest.raises(ValueError, match=message):
    run()
  assert calls == [] and not root.exists()


@pytest.fixture
def sweep(tmp_path, monkeypatch):
  """Runs the command; `calls` has the phases that it started, `run.lenders` whose controls."""
  calls = []
  lenders = []

  def command(phase, overrides, path, *options):
    calls.append((phase, overrides))
    if phase == 'search':
      lenders.append([option.removeprefix(f'--controls={root}/') for option in options])
    workdir = Workdir(path)
    if phase == 'pretrain':
      workdir.claim({'pretrain': {}})
      workdir.log('pretrain', 1)
    elif phase == 'search':
      workdir.claim({'search': {'population': 2, 'iterations': 5, 'literal': False}})
      for step in range(3):
        best = 1.5 + 0.1 * step + overrides['seed']
        workdir.log('search', step + 1, score=[best, 0.1], key=[1 + best, 0.4])
      workdir.write_json(
        'plan.json',
        {
          'ratio': [10, 0, 0, 0, 0, 0, 20],
          'degree': [2, 2, 2, 2, 2, 2, 2 if overrides['search.algorithm'] == 'pbt' else 0],
          'activations': [60, 40],
          'replaced': [50, 0],
          'validation_accuracy': {'planned': 0.9},
        },
      )
    else:
      Workdir(path / 'thin').claim({'thin': {}})
      Workdir(path / 'thin').write_json(
        'thin.json', {'activations': [30, 15], 'validation_accuracy': 0.8}
      )

  root = tmp_path / 'root'
  config = cnn7_fashion.get_config('smoke')
  monkeypatch.setattr(pareto, '_command', command)
  monkeypatch.setattr(pareto, 'settings', lambda path: SETTINGS)
  monkeypatch.setattr(pareto.launcher, 'WORKDIR', types.SimpleNamespace(value=root))
  monkeypatch.setattr(pareto.launcher, 'CONFIG', types.SimpleNamespace(value=config))

  def run(thin=False):
    monkeypatch.setattr(pareto, 'THIN', types.SimpleNamespace(value=thin))
    pareto.main()

  run.lenders = lenders
  return root, calls, run


def rows(path):
  return list(csv.DictReader(path.open()))


def test_all_algorithms_of_a_seed_start_from_one_network(sweep):
  root, calls, run = sweep
  run()
  pretrained = [overrides for phase, overrides in calls if phase == 'pretrain']
  assert all(overrides == {'seed': overrides['seed']} for overrides in pretrained)
  runs = sorted(path.name for path in root.iterdir() if path.name.startswith('algorithm-'))
  assert len(runs) == 4
  for path in runs:
    assert json.loads((root / path / 'metrics.jsonl').read_text().splitlines()[0])['step'] == 1
  run()
  assert [phase for phase, _ in calls].count('search') == 4


def test_a_run_may_take_the_control_of_every_run_before_it(sweep):
  _, _, run = sweep
  run()
  names = [pareto.name(settings) for settings in SETTINGS]
  assert run.lenders == [names[:i] for i in range(4)]


def test_runs_that_differ_in_fine_tuning_alone_share_their_pretraining(sweep, monkeypatch):
  _, calls, run = sweep
  settings = [
    {'seed': 0, 'search.algorithm': 'pbt', 'finetune.epochs': epochs} for epochs in (1, 2)
  ]
  monkeypatch.setattr(pareto, 'settings', lambda path: settings)
  run()
  assert [overrides for phase, overrides in calls if phase == 'pretrain'] == [{'seed': 0}] * 2
  assert [overrides for phase, overrides in calls if phase == 'search'] == settings


def test_a_sweep_shows_how_searches_grew_with_their_budget(sweep):
  root, _, run = sweep
  run()
  found = rows(root / 'search_progress.csv')
  assert [row['setting'] for row in found] == ['algorithm=btpbt'] * 3 + ['algorithm=pbt'] * 3
  assert [row['member_iterations'] for row in found[:3]] == ['10', '20', '30']
  assert [float(found[2][name]) for name in ('mean', 'low', 'high')] == pytest.approx(
    [2.2, 1.7, 2.7]
  )
  assert (root / 'search_progress.png').exists()
  assert {row['series'] for row in rows(root / 'pareto.csv')} == {'btpbt', 'pbt'}


def test_every_plan_has_the_bytes_and_seconds_of_an_inference(sweep):
  root, _, run = sweep
  run()
  found = rows(root / 'served_bytes.csv')
  assert [(row['label'], row['seed']) for row in found] == [
    (f'algorithm={s["search.algorithm"]}', str(s['seed'])) for s in SETTINGS
  ]
  # The other plan prunes all of a layer's channels: the classes are the same for all images.
  both, nothing = (
    [row for row in found if (row['label'] == 'algorithm=pbt') == left] for left in (True, False)
  )
  for quantity in ('megabytes', 'seconds'):
    assert min(float(row[quantity]) for row in both) > max(float(r[quantity]) for r in nothing) > 0
  for name in ('served_bytes', 'served_seconds'):
    assert (root / f'{name}.png').read_bytes().startswith(b'\x89PNG')
  assert (root / 'served_seconds.csv').read_text() == (root / 'served_bytes.csv').read_text()


def test_thin_networks_stand_beside_every_plan_if_asked_for(sweep):
  root, calls, run = sweep
  run()
  run(thin=True)
  assert [phase for phase, _ in calls].count('thin') == 4
  found = {row['series']: row for row in rows(root / 'pareto.csv')}
  thin = found['thin beside pbt']
  assert (float(thin['relus']), float(thin['accuracy']), thin['seeds']) == (45, 0.8, '2')
  assert float(found['pbt']['relus']) == 50


@pytest.mark.parametrize(
  'name, algorithms',
  [
    ('figure4b', ('btpbt', 'pbt', 'controller')),
    ('figure5', ('layerwise', 'cw', 'cw_mp', 'cw_mp_md')),
    ('planners', planners.ALGORITHMS),
  ],
)
def test_the_comparisons_of_the_figures_have_one_budget_and_three_seeds(name, algorithms):
  found = pareto.settings(f'experiments/configs/{name}.py')
  assert {(s['search.algorithm'], s['seed']) for s in found} == {
    (algorithm, seed) for algorithm in algorithms for seed in range(3)
  }
  # Nothing else differs: the same population, iterations and cycles.
  assert {key for setting in found for key in setting} == {'seed', 'search.algorithm'}


@pytest.mark.parametrize('weights', [None, '/weights'])
def test_the_ablation_changes_options_of_training_alone(monkeypatch, weights):
  monkeypatch.delenv('SAFENET_WEIGHTS_DIR', raising=False)
  if weights:
    monkeypatch.setenv('SAFENET_WEIGHTS_DIR', weights)
  found = pareto.settings('experiments/configs/ablation.py')
  assert len(found) == 3 * (6 if weights else 5)
  assert len({pareto.name(setting) for setting in found}) == len(found)
  assert all(key.split('.')[0] != 'search' for setting in found for key in setting)
  taught = [s for s in found if 'teacher.weights' in s]
  assert [s['seed'] for s in taught] == (list(range(3)) if weights else [])
