"""Batch normalisation and its gradient equal Flax's."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from safenet_jax.models import batch_norm


@pytest.mark.parametrize('shape', [(6, 5, 4, 3), (16, 3)])
@pytest.mark.parametrize('train', [False, True])
def test_values_statistics_and_gradients_equal_those_of_flax(train, shape):
  key_x, key_scale, key_bias, key_y = jax.random.split(jax.random.key(0), 4)
  x = 2 + 3 * jax.random.normal(key_x, shape)
  ours = batch_norm.BatchNorm(train, 0.9, 1e-5)
  flax = nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5)
  variables = ours.init(jax.random.key(1), x)
  jax.tree.map(np.testing.assert_array_equal, variables, flax.init(jax.random.key(1), x))
  params = {
    'scale': jax.random.normal(key_scale, shape[-1:]),
    'bias': jax.random.normal(key_bias, shape[-1:]),
  }
  stats = {'mean': jnp.arange(3.0), 'var': 1 + jnp.arange(3.0)}
  weights = jax.random.normal(key_y, shape)

  def loss(x, params, module):
    values = {'params': params, 'batch_stats': stats}
    y, state = module.apply(values, x, mutable=['batch_stats'])
    return jnp.sum(weights * jnp.sin(y)), (y, state)

  found, expected = (
    jax.value_and_grad(loss, (0, 1), has_aux=True)(x, params, module) for module in (ours, flax)
  )
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, expected)


def test_the_gradient_is_that_of_one_member_after_another():
  x = jax.random.normal(jax.random.key(0), (2, 8, 3))
  module = batch_norm.BatchNorm(True, 0.9, 1e-5)
  variables = module.init(jax.random.key(1), x[0])

  def gradient(x):
    def loss(x):
      return jnp.sum(jnp.sin(module.apply(variables, x, mutable=['batch_stats'])[0]))

    return jax.grad(loss)(x)

  found = jax.vmap(gradient)(x)
  for i in range(2):
    np.testing.assert_allclose(found[i], gradient(x[i]), rtol=1e-5, atol=1e-6)


def test_the_result_has_the_type_of_its_input():
  x = jnp.ones((4, 3), jnp.bfloat16)
  module = batch_norm.BatchNorm(True, 0.9, 1e-5)
  variables = module.init(jax.random.key(0), x)
  y, state = module.apply(variables, x, mutable=['batch_stats'])
  assert y.dtype == jnp.bfloat16
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state))
