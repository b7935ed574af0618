"""Plans, importance and masks."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from safenet_jax.approximation import importance, plans
from safenet_jax.models import layers
from safenet_jax.models.network import Network


def small_network():
  """Two convolutions of four 1x1 filters each."""
  records = (
    layers.Conv(4, kernel=1),
    layers.Activation(),
    layers.Conv(4, kernel=1),
    layers.Activation(),
  )
  return Network(records, (2, 2, 2))


def variables_with_norms(net, first, second):
  """Variables whose filters have the given L1 norms, batch norm the identity."""
  variables = net.init(jax.random.key(0))
  for name, norms in (('conv0', first), ('conv1', second)):
    shape = variables['params'][name]['kernel'].shape
    signs = jnp.where(jnp.arange(shape[2]) % 2, 1.0, -1.0)
    variables['params'][name]['kernel'] = (
      signs[:, None] * jnp.asarray(norms) * jnp.ones(shape) / shape[2]
    )
  return variables


def test_masks_equal_a_hand_sized_example_of_equation_3():
  net = small_network()
  variables = variables_with_norms(net, [3.0, 1.0, 4.0, 2.0], [1.0, 9.0, 5.0, 7.0])
  ranks = importance.ranks(net, variables)
  np.testing.assert_array_equal(ranks[0], [2, 0, 3, 1])
  np.testing.assert_array_equal(ranks[1], [0, 3, 1, 2])
  # alpha = 0.5 replaces the two least important of four, alpha = 0.75 three.
  masks = importance.masks(plans.from_twentieths([10, 15], [2, 2]), ranks)
  np.testing.assert_array_equal(masks[0], [False, True, False, True])
  np.testing.assert_array_equal(masks[1], [True, False, True, True])


def test_importance_is_that_of_the_served_filter():
  net = small_network()
  variables = variables_with_norms(net, [1.0, 1.0, 1.0, 1.0], [1.0] * 4)
  variables['params']['conv0_bn']['scale'] = jnp.asarray([2.0, -3.0, 1.0, 1.0])
  variables['batch_stats']['conv0_bn']['var'] = jnp.asarray([1.0, 1.0, 1.0, 16.0])
  np.testing.assert_allclose(
    importance.importance(net, variables)[0], [2.0, 3.0, 1.0, 0.25], rtol=1e-4
  )


def test_equal_importance_is_ordered_by_index():
  net = small_network()
  ranks = importance.ranks(net, variables_with_norms(net, [1.0] * 4, [1.0] * 4))
  np.testing.assert_array_equal(ranks[0], [0, 1, 2, 3])


def test_replaced_channels_round_to_the_nearest():
  plan = plans.from_twentieths([0, 1, 1, 10, 20], [2] * 5)
  channels = jnp.asarray([16, 16, 8, 5, 7])
  np.testing.assert_array_equal(plans.replaced_channels(plan, channels), [0, 1, 0, 3, 7])


@pytest.mark.parametrize(
  'ratios, degrees, message',
  [
    ([21], [2], 'activation0: ratio 21'),
    ([0, -1], [2, 2], 'activation1: ratio -1'),
    ([1.5], [2], 'ratio 1.5'),
    ([1], [1], 'degree 1'),
    ([1, 1], [2, 4], 'activation1: degree 4'),
    ([1, 2], [2], '2 ratios and 1 degrees'),
    ([float('nan')], [2], 'activation0: ratio nan, want an integer in 0..20'),
    (['ten'], [2], "activation0: ratio 'ten', want an integer"),
    ([10], [None], 'activation0: degree None, want one of'),
  ],
)
def test_bad_plans_are_refused(ratios, degrees, message):
  with pytest.raises(ValueError, match=message):
    plans.from_twentieths(ratios, degrees)


def test_a_plan_is_made_of_shares_of_the_channels():
  plan = plans.make([0, 0.05, 0.35, 0.1 + 0.2, 1], [2, 0, 3, 2, 2])
  assert plan.ratio.tolist() == [0, 1, 7, 6, 20]
  assert plan.degree.tolist() == [2, 0, 3, 2, 2]
  every = plans.make((step / plans.GRID for step in range(plans.GRID + 1)), [2] * 21)
  assert every.ratio.tolist() == list(range(21))


@pytest.mark.parametrize(
  'ratios, degrees, message',
  [
    ([0.5, 0.33], [2, 2], 'activation1: ratio 0.33, want a multiple of 0.05.*nearest is 0.35'),
    ([0.501], [2], 'ratio 0.501.*nearest is 0.5$'),
    ([10], [2], 'ratio 10, want a multiple of 0.05 in 0..1: the nearest is 1.0'),
    ([-0.05], [2], 'ratio -0.05.*nearest is 0.0'),
    ([float('nan')], [2], 'ratio nan, want a number'),
    ([True], [2], 'ratio True'),
    ([None], [2], 'activation0: ratio None, want a number in 0..1'),
    ([0.5], [1], 'activation0: degree 1, want one of'),
    ([0.5, 0.5], [2], '2 ratios and 1 degrees'),
  ],
)
def test_a_share_beside_the_grid_is_refused_and_the_nearest_named(ratios, degrees, message):
  with pytest.raises(ValueError, match=message):
    plans.make(ratios, degrees)


@pytest.mark.parametrize(
  'plan, message',
  [
    (plans.make([0.5], [2]), r'a plan of 1 layers, want 3: one for each activation'),
    (plans.make([0.5] * 7, [2] * 7), r'a plan of 7 layers, want 3'),
    (plans.Plan(np.asarray([0, 1, 21]), np.asarray([0, 1, 2])), 'activation2: ratio 21'),
    (plans.Plan(np.asarray([0, 1, 2]), np.asarray([0, 1, 3])), r'degree indices \[0, 1, 3\]'),
    (plans.Plan(np.asarray([0, 1, 2]), np.asarray([0])), '3 ratios and 1 degrees'),
    ([0.5, 0.5, 0.5], 'plan of type list, want a Plan'),
  ],
)
def test_a_plan_of_another_network_is_refused(plan, message):
  with pytest.raises(ValueError, match=message):
    plans.check(plan, 3)
  plans.check(plans.make([0.5] * 3, [0, 2, 3]), 3)


def test_plans_survive_the_disk_and_know_their_network(tmp_path):
  path = tmp_path / 'plan.json'
  plan = plans.from_twentieths([0, 7, 20], [2, 3, 0])
  path.write_text(json.dumps(plans.record(plan, 'cnn7', note=1)))
  loaded = plans.load(path, 'cnn7', 3)
  np.testing.assert_array_equal(loaded.ratio, plan.ratio)
  np.testing.assert_array_equal(loaded.degree, [2, 3, 0])
  with pytest.raises(ValueError, match='plan for cnn7, want one for vgg16'):
    plans.load(path, 'vgg16', 3)
  with pytest.raises(ValueError, match='plans 3 layers, want 7'):
    plans.load(path, 'cnn7', 7)
  path.write_text('{"network": "cnn7", "ratio": [0, NaN, 3], "degree": [2, 2, 2]}')
  with pytest.raises(ValueError, match='plan.json: activation1: ratio nan, want an integer'):
    plans.load(path, 'cnn7', 3)
  path.write_text('{"network": "cnn7"}')
  with pytest.raises(ValueError, match='not a plan'):
    plans.load(path, 'cnn7', 3)
  with pytest.raises(FileNotFoundError, match='run the search'):
    plans.load(tmp_path / 'none.json', 'cnn7', 3)


def test_learned_ranks_survive_the_disk_and_fit_the_layers(tmp_path):
  path = tmp_path / 'plan.json'
  plan = plans.from_twentieths([10, 20], [2, 3])
  path.write_text(json.dumps(plans.record(plan, 'cnn7')))
  assert plans.load_ranks(path, (3, 2)) is None
  ranks = [[2, 0, 1], [1, 0]]
  path.write_text(json.dumps(plans.record(plan, 'cnn7', ranks=ranks)))
  assert [rank.tolist() for rank in plans.load_ranks(path, (3, 2))] == ranks
  for wrong in ([[2, 0, 1]], [[2, 0, 1], [1, 1]], [[2, 0, 1], [0, 1, 2]], [[2, 0, 1], 5], 7, {}):
    path.write_text(json.dumps(plans.record(plan, 'cnn7', ranks=wrong)))
    with pytest.raises(ValueError, match=r'ranks that are no orders of \(3, 2\) channels'):
      plans.load_ranks(path, (3, 2))
