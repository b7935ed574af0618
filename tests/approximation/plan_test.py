"""Plans, importance and masks."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from safenet_jax.approximation import importance
from safenet_jax.approximation import plan as plans
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
  masks = importance.masks(plans.make([10, 15], [2, 2]), ranks)
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
  plan = plans.make([0, 1, 1, 10, 20], [2] * 5)
  channels = jnp.asarray([16, 16, 8, 5, 7])
  np.testing.assert_array_equal(plans.replaced_channels(plan, channels), [0, 1, 0, 3, 7])


@pytest.mark.parametrize(
  'ratios, degrees, message',
  [
    ([21], [2], 'ratio 21'),
    ([-1], [2], 'ratio -1'),
    ([1.5], [2], 'ratio 1.5'),
    ([1], [1], 'degree 1'),
    ([1], [4], 'degree 4'),
    ([1, 2], [2], '2 ratios and 1 degrees'),
  ],
)
def test_bad_plans_are_refused(ratios, degrees, message):
  with pytest.raises(ValueError, match=message):
    plans.make(ratios, degrees)


def test_plans_survive_the_disk_and_know_their_network(tmp_path):
  path = tmp_path / 'plan.json'
  plan = plans.make([0, 7, 20], [2, 3, 0])
  path.write_text(json.dumps(plans.record(plan, 'cnn7', note=1)))
  loaded = plans.load(path, 'cnn7', 3)
  np.testing.assert_array_equal(loaded.ratio, plan.ratio)
  np.testing.assert_array_equal(loaded.degree, [2, 3, 0])
  with pytest.raises(ValueError, match='plan for cnn7, want one for vgg16'):
    plans.load(path, 'vgg16', 3)
  with pytest.raises(ValueError, match='plans 3 layers, want 7'):
    plans.load(path, 'cnn7', 7)
  path.write_text('{"network": "cnn7"}')
  with pytest.raises(ValueError, match='not a plan'):
    plans.load(path, 'cnn7', 3)
  with pytest.raises(FileNotFoundError, match='run the search'):
    plans.load(tmp_path / 'none.json', 'cnn7', 3)
