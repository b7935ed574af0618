"""The Flax network of a tuple of records."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from safenet_jax.approximation import activation
from safenet_jax.models import architectures, layers
from safenet_jax.models import network as networks


def test_shapes_follow_what_the_network_computes():
  net = architectures.cnn7(classes=5, width=0.25, input_shape=(12, 12, 1))
  variables = net.init(jax.random.key(0))
  _, state = net.apply(variables, jnp.zeros((2, 12, 12, 1)), mutable=['preactivations'])
  for shape in layers.shapes(net.layers, net.input_shape):
    if isinstance(shape.layer, layers.Activation):
      assert state['preactivations'][shape.name][0].shape == (2, *shape.output_shape)
  assert net.apply(variables, jnp.zeros((2, 12, 12, 1))).shape == (2, 5)


def test_batch_norm_normalises_by_the_batch_only_in_training():
  net = networks.Network((layers.Conv(4),), (6, 6, 2))
  variables = net.init(jax.random.key(0))
  images = 5 + 3 * jax.random.normal(jax.random.key(1), (8, 6, 6, 2))
  y, state = net.apply(variables, images, train=True, mutable=['batch_stats'])
  np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-4)
  np.testing.assert_allclose(y.std((0, 1, 2)), 1, atol=1e-2)
  assert np.abs(state['batch_stats']['conv0_bn']['mean']).max() > 0.1
  assert np.abs(net.apply(variables, images).mean((0, 1, 2))).max() > 0.1


def test_pools_reduce_windows():
  x = jax.random.normal(jax.random.key(0), (2, 4, 6, 3))
  blocks = np.asarray(x).reshape(2, 2, 2, 3, 2, 3)
  for record, expected in (
    (layers.AveragePool(2), blocks.mean((2, 4))),
    (layers.MaxPool(2), blocks.max((2, 4))),
  ):
    net = networks.Network((record,), (4, 6, 3))
    np.testing.assert_allclose(net.apply({}, x), expected, rtol=1e-6)
  whole = networks.Network((layers.AveragePool(None),), (4, 4, 3)).apply({}, x[:, :, :4])
  np.testing.assert_allclose(whole[:, 0, 0], x[:, :, :4].mean((1, 2)), rtol=1e-6)


def reference_pool(x, layer, reduce, fill):
  """A pool by loops, over float64 [B, H, W, C] with `fill` in the padding."""
  padded = np.pad(x, ((0, 0), *layer.padding, (0, 0)), constant_values=fill)
  n, s = layer.window, layer.stride or layer.window
  rows, columns = ((size - n) // s + 1 for size in padded.shape[1:3])
  out = [
    [reduce(padded[:, i * s : i * s + n, j * s : j * s + n], axis=(1, 2)) for j in range(columns)]
    for i in range(rows)
  ]
  return np.stack([np.stack(row, 1) for row in out], 1)


@pytest.mark.parametrize('window, stride', [(3, 2), (3, 1), (2, 3), (3, 3)])
@pytest.mark.parametrize('padding', [((0, 0), (0, 0)), ((1, 0), (1, 1))])
def test_pools_of_any_window_stride_and_padding(window, stride, padding):
  x = np.asarray(jax.random.normal(jax.random.key(0), (2, 7, 8, 3)), np.float64) - 3

  def pool(record):
    return networks.Network((record,), (7, 8, 3)).apply({}, jnp.asarray(x, jnp.float32))

  record = layers.MaxPool(window, stride, padding)
  np.testing.assert_allclose(pool(record), reference_pool(x, record, np.max, -np.inf), rtol=1e-6)
  record = layers.AveragePool(window, stride, padding)
  np.testing.assert_allclose(pool(record), reference_pool(x, record, np.mean, 0), rtol=1e-5)
  record = layers.AveragePool(window, stride, padding, count_padding=False)
  np.testing.assert_allclose(pool(record), reference_pool(x, record, np.nanmean, np.nan), rtol=1e-5)


def test_a_concatenation_puts_branches_side_by_side():
  x = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
  branches = ((), (layers.AveragePool(3, 1, ((1, 1), (1, 1))),), (layers.Conv(2),))
  net = networks.Network((layers.Concat(branches),), (4, 4, 3))
  variables = net.init(jax.random.key(1))
  parts = [networks.Network(b, (4, 4, 3)).apply(variables, x) for b in branches[1:]]
  np.testing.assert_allclose(net.apply(variables, x), np.concatenate([x, *parts], -1), rtol=1e-6)


def test_activations_have_limits_and_slopes():
  x = jnp.linspace(-8, 8, 33).reshape(1, 1, 11, 3)
  for record, expected in (
    (layers.Activation(limit=6), np.clip(x, 0, 6)),
    (layers.Activation(slope=0.1), np.where(x < 0, 0.1 * x, x)),
    (layers.Activation(limit=2, slope=-0.5), np.minimum(np.where(x < 0, -0.5 * x, x), 2)),
  ):
    net = networks.Network((record,), (1, 11, 3))
    np.testing.assert_allclose(net.apply({}, x), expected, rtol=1e-6)
    # What a plan does not replace stays what the network has there.
    given = activation.all_relu((3,))
    np.testing.assert_allclose(net.apply({}, x, given), expected, rtol=1e-6)


def test_a_residual_adds_its_branch_and_its_shortcut():
  x = jax.random.normal(jax.random.key(0), (2, 5, 5, 3))
  branch = (layers.Conv(8, stride=2), layers.Activation(), layers.Conv(8))
  for shortcut in ((layers.PadShortcut(8, 2),), (layers.Conv(8, kernel=1, stride=2),)):
    net = networks.Network((layers.Residual(branch, shortcut),), (5, 5, 3))
    variables = net.init(jax.random.key(1))
    left = networks.Network(branch, (5, 5, 3)).apply(variables, x)
    if isinstance(shortcut[0], layers.Conv):
      # The shortcut's convolution is counted after those of the branch.
      alone = {
        k: {n.replace('conv2', 'conv0'): v for n, v in tree.items() if 'conv2' in n}
        for k, tree in variables.items()
      }
      right = networks.Network(shortcut, (5, 5, 3)).apply(alone, x)
    else:
      right = np.zeros((2, 3, 3, 8))
      right[..., 2:5] = x[:, ::2, ::2]
    np.testing.assert_allclose(net.apply(variables, x), left + right, rtol=1e-5, atol=1e-5)
  same = networks.Network((layers.Residual((layers.Conv(3),)),), (5, 5, 3))
  variables = same.init(jax.random.key(1))
  plain = networks.Network((layers.Conv(3),), (5, 5, 3))
  np.testing.assert_allclose(same.apply(variables, x), plain.apply(variables, x) + x, rtol=1e-6)


def test_lists_of_records_make_the_same_network():
  block = layers.Residual([layers.Conv(3)])
  net = networks.Network([layers.Conv(3), block], [5, 5, 3])
  same = networks.Network((layers.Conv(3), layers.Residual((layers.Conv(3),))), (5, 5, 3))
  assert net == same and hash(net) == hash(same)


@pytest.mark.parametrize(
  'records, shape, message',
  [
    ((layers.Conv(4), layers.Dense(3)), (8, 8, 1), r'dense0 got shape \(8, 8, 4\)'),
    ((layers.Conv(4), layers.AveragePool(3)), (8, 8, 1), 'a pool of window 3 does not divide'),
    ((layers.Conv(4),), (8, 8), r'input_shape \(8, 8\), want three positive integers'),
    ((layers.Conv(4),), (8, 0, 1), r'input_shape \(8, 0, 1\), want three'),
    ((layers.Conv(4),), 8, 'input_shape 8, want three'),
    (('conv',), (8, 8, 1), "unknown layer 'conv'"),
  ],
)
def test_a_network_that_cannot_be_is_refused_when_it_is_made(records, shape, message):
  with pytest.raises(ValueError, match=message):
    networks.Network(records, shape)


def test_approximations_are_one_for_each_activation():
  net = networks.Network((layers.Activation(), layers.Activation()), (4, 4, 1))
  for given in ((jnp.tanh,), (jnp.tanh,) * 3):
    with pytest.raises(ValueError, match=f'approximations of {len(given)} layers, want .* the 2'):
      net.apply({}, jnp.zeros((1, 4, 4, 1)), given)
