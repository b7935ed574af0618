"""Workdirs, finished or not, as the report reads them."""

import pytest

from safenet_jax.report import runs
from tests.support import workdirs


def test_what_a_workdir_does_not_hold_is_none(tmp_path):
  path = workdirs.write(tmp_path / 'run', workdirs.config(), metrics=workdirs.log())
  (run,) = runs.load(path)
  assert (run.plan, run.ledger, run.client, run.thin) == (None,) * 4
  assert run.algorithm == 'all-ReLU' and run.title == 'cnn7 on cifar10'
  assert runs.best_accuracy(run) == (0.8, 'validation')
  assert runs.accuracy(run, 'finetune') is None


def test_accuracies_are_of_the_test_images_if_they_were_scored(tmp_path):
  scores = [
    {'phase': 'finetune', 'split': 'validation', 'accuracy': 0.9},
    {'phase': 'finetune', 'split': 'test', 'accuracy': 0.7},
  ]
  settings = workdirs.config()
  (run,) = runs.load(workdirs.write(tmp_path, settings, plan=workdirs.plan()))
  assert runs.best_accuracy(run) == (0.84, 'validation')
  (run,) = runs.load(workdirs.write(tmp_path, settings, plan=workdirs.plan(), evaluations=scores))
  assert runs.best_accuracy(run) == (0.7, 'test')


@pytest.mark.parametrize(
  'section, algorithm',
  [
    ({'source': 'search'}, 'pbt'),
    ({'network': 'cnn7', 'ratio': [], 'degree': []}, 'given'),
  ],
)
def test_a_plan_written_by_hand_is_no_algorithms(tmp_path, section, algorithm):
  settings = workdirs.config(algorithm='pbt') | {'plan': section}
  (run,) = runs.load(workdirs.write(tmp_path, settings, plan=workdirs.plan()))
  assert run.algorithm == algorithm


def test_only_networks_of_the_paper_as_wide_and_on_its_images_are_full_size(tmp_path):
  def full(plan=None, **options):
    files = {'plan': plan} if plan else {}
    path = tmp_path / f'{len(list(tmp_path.iterdir()))}'
    (run,) = runs.load(workdirs.write(path, workdirs.config(**options), **files))
    return run.is_full_size('cnn7', 'cifar10')

  assert full() and full(workdirs.plan())
  assert not full(width=0.25) and not full(dataset='fashion_mnist')
  assert not full(pool_before_activation=True)
  assert not full(workdirs.plan(counts=[n // 4 for n in workdirs.CNN7]))


def test_a_sweep_is_its_runs_and_their_names_may_have_commas(tmp_path):
  settings = [{'seed': seed, 'search.algorithm': 'pbt'} for seed in range(3)]
  workdirs.write(tmp_path, {'sweep': {'settings': settings}})
  shared = workdirs.config()
  workdirs.write(tmp_path / 'pretrain seed-0', {k: shared[k] for k in ('seed', 'model', 'data')})
  for seed in range(2):
    own = workdirs.config(algorithm='pbt') | {'seed': {'seed': seed}}
    # The first search goes on, the third has not begun.
    files = {'plan': workdirs.plan()} if seed else {}
    workdirs.write(tmp_path / f'algorithm-pbt,seed-{seed}', own, **files)
  found = runs.load(tmp_path)
  assert [run.name for run in found] == ['algorithm-pbt,seed-1', 'algorithm-pbt,seed-0']
  assert found[0].overrides == {'seed': 1, 'search.algorithm': 'pbt'}
  assert found[1].plan is None


def test_a_directory_without_a_run_says_what_to_do(tmp_path):
  with pytest.raises(FileNotFoundError, match='run pretrain first'):
    runs.load(tmp_path)
  # A phase that was refused may have left its settings.
  workdirs.write(tmp_path, workdirs.config(), metrics=())
  with pytest.raises(FileNotFoundError, match='nothing has been trained .* run pretrain first'):
    runs.load(tmp_path)
  workdirs.write(tmp_path, {'sweep': {'settings': [{'seed': 0}]}})
  with pytest.raises(FileNotFoundError, match='has begun'):
    runs.load(tmp_path)


def test_the_cost_model_adds_what_is_kept_and_what_is_replaced():
  relu, square, cubic = 20.1e-6, 20.1e-6 / 192, 0.2e-6
  plan = workdirs.plan(ratio=10, degree=2, counts=(800,), channels=(8,))
  assert runs.replaced_share(plan) == 0.5
  assert runs.seconds_of(plan) == pytest.approx(400 * relu + 400 * square)
  assert runs.seconds_of(plan | {'degree': [3]}) == pytest.approx(400 * relu + 400 * cubic)
  assert runs.seconds_of(plan | {'degree': [0]}) == pytest.approx(400 * relu)
  assert runs.seconds_of(runs.all_relu([800])) == pytest.approx(800 * relu)


def test_runs_of_one_name_get_names_of_their_own(tmp_path):
  paths = [workdirs.write(tmp_path / f'{i}/run', workdirs.config()) for i in range(3)]
  found = runs.distinct([run for path in paths for run in runs.load(path)])
  assert [run.name for run in found] == ['run', 'run 2', 'run 3']


@pytest.mark.parametrize(
  'name, phase',
  [
    ('plan.json', 'search or finetune'),
    ('ledger.json', 'infer'),
    ('client_ledger.json', 'infer --two_processes'),
    ('thin/thin.json', 'thin'),
    ('evaluations.json', 'evaluate'),
  ],
)
def test_a_cut_file_is_named_with_its_line_and_what_to_run(tmp_path, name, phase):
  path = workdirs.write(tmp_path / 'run', workdirs.config(), metrics=workdirs.log())
  (path / name).parent.mkdir(exist_ok=True)
  (path / name).write_text('{\n"phases": {"offl')
  with pytest.raises(ValueError, match=f'{name}, line 2: .* delete it and run {phase} again'):
    runs.load(path)


def test_a_log_cut_off_in_its_last_line_is_reported(tmp_path):
  path = workdirs.write(tmp_path / 'run', workdirs.config(), metrics=workdirs.log())
  text = (path / 'metrics.jsonl').read_text()
  (path / 'metrics.jsonl').write_text(text[:-9])
  (found,) = runs.load(path)
  assert len(found.metrics) == text.count('\n') - 1


def test_a_workdir_of_the_library_alone_has_no_report(tmp_path):
  path = workdirs.write(tmp_path / 'run', {'train': {'epochs': 1}}, metrics=workdirs.log())
  with pytest.raises(ValueError, match='has no model and no data, want the workdir of'):
    runs.load(path)


def test_a_cut_config_of_a_sweep_names_the_run(tmp_path):
  root = workdirs.write(tmp_path / 'root', {'sweep': {'settings': [{'seed': 0}]}}, metrics=[])
  (root / 'one').mkdir()
  (root / 'one/config.json').write_text('{"model')
  with pytest.raises(ValueError, match=r'one/config\.json, line 1: .* use another workdir'):
    runs.load(root)
