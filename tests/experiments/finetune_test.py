"""A hand-written plan, trained and scored without a search."""

import json
import re
import shutil

import numpy as np
import pytest

from safenet_jax.approximation import plans
from tests.experiments.commands_test import run, SMALL, SMOKE

# Every option of polynomial training, on the smallest run there is.
FLAGS = (
  *SMALL,
  '--config.model.width=0.125',
  '--config.pretrain.ema=0.9',
  '--config.finetune.ema=0.9',
  '--config.finetune.anneal_epochs=0.5',
  '--config.finetune.warmup_epochs=0.25',
  '--config.finetune.coefficient_rate=0.05',
  '--config.finetune.clip_norm=0.5',
  '--config.finetune.range_penalty=0.02',
  '--config.finetune.range_limit=4.0',
  '--config.finetune.distillation=0.25',
  '--config.finetune.temperature=2.0',
  '--config.finetune.label_smoothing=0.1',
  '--config.finetune.per_channel=True',
  # Above the initial 0.2: with another floor the network is another one.
  '--config.finetune.leading_floor=0.25',
  '--config.secure.calibration_images=20',
)
# Ranks as gates would have learned them, which are not those of any weights.
RANKS = [[(3 * c + t) % 8 for c in range(8)] for t in range(6)] + [[1, 0]]
PLAN = {
  'network': 'cnn7',
  'ratio': [10, 10, 20, 5, 0, 10, 3],
  'degree': [2, 2, 3, 2, 2, 0, 2],
  'ranks': RANKS,
}


@pytest.fixture(scope='module')
def run_of_a_plan(tmp_path_factory):
  path = tmp_path_factory.mktemp('plan')
  (path / 'plan.json').write_text(json.dumps(PLAN))
  flags = (*FLAGS, f'--workdir={path / "run"}')
  run('pretrain', *flags)
  run('finetune', *flags, f'--plan={path / "plan.json"}')
  run('infer', *flags)
  return path / 'run', flags


def evaluations(workdir):
  return json.loads((workdir / 'evaluations.json').read_text())


def test_a_hand_written_plan_is_trained_and_served_without_a_search(run_of_a_plan):
  workdir, flags = run_of_a_plan
  plan = json.loads((workdir / 'plan.json').read_text())
  assert {name: plan[name] for name in PLAN} == PLAN
  assert {m['phase'] for m in map(json.loads, (workdir / 'metrics.jsonl').open())} == {
    'pretrain',
    'finetune',
    'control',
  }
  run('report', *flags)
  run('export', *flags, f'--out={workdir / "planned.npz"}')
  with np.load(workdir / 'planned.npz') as arrays:
    masks = [arrays[f'activation{t}/mask'].tolist() for t in range(7)]
  replaced = [4, 4, 8, 2, 0, 4, 0]
  assert masks == [[r < n for r in rank] for rank, n in zip(RANKS, replaced)]
  assert json.loads((workdir / 'client_ledger.json').read_text())['agreement'] == 2


def test_the_test_images_score_a_phase_once(run_of_a_plan):
  workdir, flags = run_of_a_plan
  first = run('evaluate', *flags, '--phase=pretrain')
  found = run('evaluate', *flags, '--phase=pretrain', code=2)
  assert re.fullmatch(
    r'error: the test images have scored pretrain already.*--force.*\n', found.stderr
  )
  run('evaluate', *flags, '--phase=pretrain', '--force')
  run('evaluate', *flags, '--phase=control')
  records = [r for r in evaluations(workdir) if r['phase'] in ('pretrain', 'control')]
  records = [r for r in records if r['split'] == 'test']
  assert [(r['phase'], r['repeated'], r['images']) for r in records] == [
    ('pretrain', False, 1000),
    ('pretrain', True, 1000),
    ('control', False, 1000),
  ]
  assert records[0]['accuracy'] == records[1]['accuracy'] > 0.2
  assert f'{records[0]["accuracy"]:.2%}' in first.stdout


def test_inference_takes_its_test_score_from_the_same_record(run_of_a_plan):
  workdir, flags = run_of_a_plan

  def scores():
    return [r for r in evaluations(workdir) if (r['phase'], r['split']) == ('finetune', 'test')]

  (record,) = scores()
  assert record['images'] == 1000 and not record['repeated']
  run('infer', *flags)
  assert scores() == [record]
  found = run('evaluate', *flags, '--phase=finetune', code=2)
  assert 'scored finetune already' in found.stderr
  run('report', *flags)
  row = f'| planned accuracy (test) | {record["accuracy"]:.2%}'
  assert f'{row} |' in (workdir / 'report.md').read_text()
  run('evaluate', *flags, '--phase=finetune', '--force')
  # What infer scored, and serves, has the floor that it was trained with.
  assert [r['accuracy'] for r in scores()] == [record['accuracy']] * 2
  run('report', *flags)
  assert f'{row} (test images scored 2 times) |' in (workdir / 'report.md').read_text()


def test_all_test_images_are_scored_in_fixed_point(run_of_a_plan):
  workdir, flags = run_of_a_plan
  place = f'--workdir={workdir}'
  found = run('fixed_point', place, code=2)
  assert f'run experiments.export --out={workdir / "model.npz"} first' in found.stderr
  run('export', *flags, f'--out={workdir / "model.npz"}')
  run('fixed_point', place)  # with neither config nor checkpoints
  *_, last = (workdir / 'commands.jsonl').read_text().splitlines()
  assert json.loads(last)['command'] == f'python -m experiments.fixed_point {place}'
  scores = json.loads((workdir / 'fixed_point.json').read_text())
  (record,) = [r for r in evaluations(workdir) if (r['phase'], r['split']) == ('finetune', 'test')][
    :1
  ]
  assert scores['images'] == 1000
  # Convolutions of other batches add in another order.
  assert abs(scores['float_correct'] - 1000 * record['accuracy']) < 2.5
  assert scores['agreement'] > 900 and scores['left'] == 0
  run('report', *flags)
  report = (workdir / 'report.md').read_text()
  assert f'| {scores["float_correct"]:,} | {scores["correct"]:,} |' in report
  assert 'no --workdir' in run('fixed_point', code=2).stderr


@pytest.mark.parametrize('drop, met', [(0.9, True), (-0.9, False)])
def test_the_accuracy_that_was_wanted_is_checked_after_fine_tuning(
  tmp_path, run_of_a_plan, drop, met
):
  source, flags = run_of_a_plan
  workdir = tmp_path / 'run'
  shutil.copytree(source, workdir)
  # As before the plan was trained, under another A_t.
  (workdir / 'plan.json').unlink()
  config = json.loads((workdir / 'config.json').read_text())
  (workdir / 'config.json').write_text(
    json.dumps(
      {k: v for k, v in config.items() if k not in ('search', 'finetune', 'plan', 'secure')}
    )
  )
  found = run(
    'finetune',
    *flags[:-1],
    f'--workdir={workdir}',
    f'--config.search.accuracy_drop={drop}',
    f'--plan={source.parent / "plan.json"}',
  )
  plan = json.loads((workdir / 'plan.json').read_text())
  assert plan['threshold'] == {
    'accuracy': pytest.approx(plan['validation_accuracy']['pretrained'] - drop),
    'feasible': met,
    'images': 1000,
  }
  assert ('is met' if met else 'is MISSED') in found.stdout


def test_a_thin_network_with_no_more_relus_stands_beside_the_plan(run_of_a_plan):
  workdir, flags = run_of_a_plan
  run('report', *flags)
  assert '| thin all-ReLU network | not run |' in (workdir / 'report.md').read_text()
  found = run('thin', *flags)
  plan = json.loads((workdir / 'plan.json').read_text())
  thin = json.loads((workdir / 'thin/thin.json').read_text())
  left = sum(plan['activations']) - sum(plan['replaced'])
  assert thin['budget'] == left
  assert 0 < sum(thin['activations']) <= left and str(sum(thin['activations'])) in found.stdout
  assert max(thin['channels']) < max(plan['channels']) and thin['width'] < 0.125
  # As many steps as the plan, before and after it was made.
  metrics = [json.loads(line) for line in (workdir / 'metrics.jsonl').open()]
  last = {line['phase']: line['step'] for line in metrics}
  assert thin['steps'] == {phase: last[phase] for phase in ('pretrain', 'control')}
  (record,) = [r for r in evaluations(workdir) if r['phase'] == 'thin']
  assert record['accuracy'] > 0.2 and not record['repeated']

  run('thin', *flags)  # changes nothing, and asks the test images nothing
  assert [r for r in evaluations(workdir) if r['phase'] == 'thin'] == [record]
  found = run('evaluate', *flags, '--phase=thin', code=2)
  assert 'scored thin already' in found.stderr
  run('evaluate', *flags, '--phase=thin', '--split=validation')
  assert evaluations(workdir)[-1]['accuracy'] == pytest.approx(thin['validation_accuracy'])
  run('report', *flags)
  report = (workdir / 'report.md').read_text()
  assert f'{sum(thin["activations"]):,} where the plan leaves {left:,}' in report
  assert f'| thin all-ReLU network, accuracy (test) | {record["accuracy"]:.2%} |' in report


def test_a_thin_network_needs_a_plan(tmp_path, run_of_a_plan):
  workdir, flags = run_of_a_plan
  shutil.copytree(workdir, tmp_path / 'run')
  (tmp_path / 'run/plan.json').unlink()
  found = run('thin', *flags[:-1], f'--workdir={tmp_path / "run"}', code=2)
  assert 'run search or finetune first' in found.stderr and found.stderr.count('\n') == 1


def test_validation_images_score_as_often_as_one_likes(run_of_a_plan):
  workdir, flags = run_of_a_plan
  for _ in range(2):
    run('evaluate', *flags, '--phase=control', '--split=validation')
  plan = json.loads((workdir / 'plan.json').read_text())
  records = [r for r in evaluations(workdir) if r['split'] == 'validation']
  records = [r for r in records if r['phase'] == 'control']
  assert [r['repeated'] for r in records] == [False, False]
  assert records[0]['accuracy'] == pytest.approx(plan['validation_accuracy']['control'])


@pytest.mark.parametrize(
  'change, message',
  [
    ({'network': 'vgg16'}, 'is a plan for vgg16, want one for cnn7'),
    ({'ratio': [10] * 6, 'degree': [2] * 6}, 'plans 6 layers, want 7'),
    ({'degree': [2] * 6}, '7 ratios and 6 degrees'),
    ({'ratio': [21] * 7}, r'ratio 21, want an integer in 0\.\.20'),
    ({'ratio': [0.5] * 7}, r'ratio 0\.5, want an integer in 0\.\.20'),
    ({'degree': [4] * 7}, r'degree 4, want one of \(0, 2, 3\)'),
    ({'ratio': 10}, 'has ratio 10, want a list of integers'),
    ({'degree': ['two'] * 7}, 'want a list of integers'),
  ],
)
def test_a_plan_that_does_not_fit_says_what_would(tmp_path, change, message):
  (tmp_path / 'plan.json').write_text(json.dumps(PLAN | change))
  with pytest.raises(ValueError, match=message) as error:
    plans.load(tmp_path / 'plan.json', 'cnn7', 7)
  assert '\n' not in str(error.value)


def test_a_plan_that_does_not_fit_is_one_line_and_code_2(tmp_path):
  (tmp_path / 'plan.json').write_text(json.dumps(PLAN | {'ratio': [10] * 6, 'degree': [2] * 6}))
  found = run(
    'finetune', SMOKE, f'--workdir={tmp_path / "run"}', f'--plan={tmp_path / "plan.json"}', code=2
  )
  assert 'plans 6 layers, want 7' in found.stderr and found.stderr.count('\n') == 1
  assert not (tmp_path / 'run').exists()


def test_an_unfinished_phase_is_not_scored(tmp_path):
  flags = (*FLAGS, f'--workdir={tmp_path / "run"}')
  found = run('evaluate', *flags, '--phase=finetune', code=2)
  assert 'run search or finetune first' in found.stderr and found.stderr.count('\n') == 1
  found = run('evaluate', *flags, '--phase=pretrain', code=2)
  assert 'run pretrain first' in found.stderr
