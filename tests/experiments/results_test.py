"""The committed rows: complete, small, what their README says, and still as accurate."""

import json
import os
import pathlib
import re

import jax
import numpy as np
import pytest

from safenet_jax import data
from safenet_jax.approximation import planned_weights, plans
from safenet_jax.models import architectures
from safenet_jax.report import runs

RESULTS = pathlib.Path(__file__).parent.parent.parent / 'experiments/results'
ROWS = sorted(path.parent for path in RESULTS.glob('*/plan.json'))
FILES = (
  'config.json',
  'plan.json',
  'metrics.jsonl',
  'evaluations.json',
  'commands.jsonl',
  'client_ledger.json',
  'model.npz',
)
# The one commit that is not clean: two searches began just before their preset was committed, as
# README says.
BEFORE_PRESET = '530b5ab2515e2292e4c20a8eb0ead8b8fc6e07dd-dirty'


def network(run):
  options = dict(run.config['model'])
  classes, shape = data.SHAPES[run.dataset]
  return architectures.build(options.pop('name'), classes=classes, input_shape=shape, **options)


@pytest.fixture(params=ROWS, ids=lambda path: path.name)
def row(request):
  (run,) = runs.load(request.param)
  return request.param, run


def test_there_are_rows():
  assert ROWS


def test_a_row_is_complete_and_small(row):
  path, run = row
  assert not [name for name in FILES if not (path / name).is_file()]
  assert sum(file.stat().st_size for file in path.iterdir()) < 10e6
  # Made from a commit, by commands that name no place of one machine.
  for line in map(json.loads, (path / 'commands.jsonl').read_text().splitlines()):
    early = line['commit'] == BEFORE_PRESET
    early &= path.name in ('resnet32_cifar100_60', 'resnet32_cifar100_83')
    assert early or re.fullmatch('[0-9a-f]{40}', line['commit'])
    assert not re.search('[ =]/', line['command'])
  assert run.client['agreement'] <= run.client['images'] and run.client['images'] >= 100
  scored = [r for r in run.evaluations if (r['phase'], r['split']) == ('finetune', 'test')]
  assert len(scored) == 1 and not scored[0]['repeated']


def test_the_readme_says_what_a_row_holds(row):
  path, run = row
  (line,) = (
    line
    for line in (RESULTS / 'README.md').read_text().splitlines()
    if line.startswith('|') and f'`{path.name}/`' in line
  )
  assert f'| {100 * runs.replaced_share(run.plan):.1f} |' in line
  accuracy, split = runs.accuracy(run, 'finetune')
  assert split == 'test' and f'| {100 * accuracy:.2f} |' in line
  assert f'{run.client["agreement"]} of {run.client["images"]}' in line


def test_the_weights_of_a_row_are_those_of_its_plan(row):
  path, run = row
  with np.load(path / 'model.npz', allow_pickle=False) as arrays:
    _, approximation = planned_weights.load_planned(network(run), arrays)
  plan = plans.from_twentieths(run.plan['ratio'], run.plan['degree'])
  wanted = plans.replaced_channels(plan, np.asarray(run.plan['channels']))
  assert [int(layer.mask.sum()) for layer in approximation] == wanted.tolist()
  assert [int(layer.degree) for layer in approximation] == run.plan['degree']


@pytest.mark.parametrize('count', [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_the_weights_of_a_row_are_as_accurate_as_it_says(row, count):
  path, run = row
  if not os.environ.get('SAFENET_DATA_DIR'):
    pytest.skip('SAFENET_DATA_DIR is not set: no CIFAR images')
  net, images = network(run), data.load(run.dataset)
  with np.load(path / 'model.npz', allow_pickle=False) as arrays:
    variables, approximation = planned_weights.load_planned(net, arrays)

  @jax.jit
  def classify(some):
    normal = data.normalise(some, images.mean, images.std)
    return net.apply(variables, normal, approximation).argmax(-1)

  hits = sum(
    int(
      (
        np.asarray(classify(images.test.images[first : first + 250]))
        == images.test.labels[first : first + 250]
      ).sum()
    )
    for first in range(0, count, 250)
  )
  accuracy, _ = runs.accuracy(run, 'finetune')
  # Four deviations of so many images; of all of them, what another machine's rounding may turn.
  slack = 4 * np.sqrt(accuracy * (1 - accuracy) / count) if count < 10_000 else 5e-4
  assert hits / count == pytest.approx(accuracy, abs=slack)
