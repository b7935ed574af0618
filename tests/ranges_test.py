"""One table of ranges for every number that a user may set."""

import math

import numpy as np
import pytest

from safenet_jax import ranges


@pytest.mark.parametrize(
  'name, good, bad',
  [
    ('batch_size', [1, 128, np.int64(5)], [0, -1, 1.0, True, '8', None, math.nan, 2**40]),
    ('seed', [0, 2**32, 2**64 - 1], [-1, 2**64, 0.5]),
    ('learning_rate', [1, 1e-9, np.float32(0.5)], [0.0, -0.1, math.nan, math.inf, '0.1', False]),
    ('momentum', [0, 0.99], [1, -0.1]),
    ('std', [(0.5, 1), ()], [(0.5, 0.0), (0.5, 'x')]),
    ('depth', [3, -1.5, 'deep', None], [math.nan, (1.0, math.inf)]),  # of a user's own network
  ],
)
def test_a_value_is_in_its_range_or_is_named(name, good, bad):
  for value in good:
    ranges.check({name: value})
  for value in bad:
    with pytest.raises(ValueError, match=f'^{name} .*, want '):
      ranges.check({name: value})


def test_all_faults_are_in_one_message():
  given = {'batch_size': 0, 'momentum': 0.5, 'learning_rate': math.nan, 'population': 2.5}
  with pytest.raises(ValueError) as found:
    ranges.check(given)
  assert str(found.value) == (
    'batch_size 0, want an integer in 1..2147483647; '
    'learning_rate nan, want a number above 0 and at most 1e+06; '
    'population 2.5, want an integer in 1..2147483647'
  )


def test_a_plan_need_not_be_trained():
  """Nor need a network that is trained already; `phases.train` and `settings` see to that."""
  for section in ('', 'pretrain', 'finetune'):
    ranges.check({'epochs': 0, 'warmup_epochs': 0.5}, section)
    with pytest.raises(ValueError, match=r'^epochs -1, want an integer in 0\.\.'):
      ranges.check({'epochs': -1}, section)


@pytest.mark.parametrize(
  'settings, message',
  [
    ({'epochs': 1, 'warmup_epochs': 5.0}, 'warmup_epochs 5.0, want fewer than the 1 epochs'),
    ({'epochs': 2, 'anneal_epochs': 2.5}, 'anneal_epochs 2.5, want at most the 2 epochs'),
  ],
)
def test_epochs_are_enough_for_what_happens_in_them(settings, message):
  with pytest.raises(ValueError, match=message):
    ranges.check(settings)
  ranges.check(settings | {'epochs': 6})
  ranges.check({'epochs': 0, 'warmup_epochs': 0.0, 'anneal_epochs': 0.0})
