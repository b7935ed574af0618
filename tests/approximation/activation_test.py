"""The approximated activation and its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from safenet_jax.approximation import activation, importance, plans
from safenet_jax.models import architectures, layers
from safenet_jax.models.network import activation_channels, exact_activation

MASK = jnp.asarray([True, False, True])


def layer(degree, coefficients=(0.3, -0.7, 0.2, 0.05), blend=0.0):
  return activation.Approximation(MASK, jnp.int32(degree), jnp.asarray(coefficients), blend)


@pytest.mark.parametrize('degree', [0, 2, 3])
def test_values_are_relu_or_the_polynomial(degree):
  x = jnp.linspace(-2, 2, 24).reshape(8, 3)
  y = np.asarray(layer(degree)(x))
  powers = {0: 0, 2: 3, 3: 4}[degree]
  polynomial = sum(c * np.asarray(x) ** j for j, c in enumerate((0.3, -0.7, 0.2, 0.05)[:powers]))
  expected = np.where(MASK, polynomial, np.maximum(x, 0))
  np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


def test_a_mask_of_another_width_is_refused():
  with pytest.raises(ValueError, match=r'a mask of shape \(3,\), want \(8,\): one per channel'):
    layer(2)(jnp.zeros((1, 4, 4, 8)))


@pytest.mark.parametrize('layers', [1, 7])
def test_a_plan_has_as_many_layers_as_the_network(layers):
  plan = plans.make([0.5] * layers, [2] * layers)
  ranks = (jnp.arange(4),) * 3
  with pytest.raises(
    ValueError, match=f'{layers} ratios and {layers} degrees .* want one per layer'
  ):
    activation.approximate(plan, ranks, activation.initial_coefficients((4, 4, 4)))


@pytest.mark.parametrize('blend', [0.0, 0.4])
@pytest.mark.parametrize('degree', [0, 2, 3])
def test_gradients_equal_finite_differences(degree, blend):
  with jax.enable_x64(True):
    # Away from the kink of ReLU.
    x = jnp.asarray(
      np.random.default_rng(0).choice([-1, 1], (6, 3)) * np.linspace(0.5, 2, 18).reshape(6, 3)
    )
    coefficients = jnp.asarray([0.3, -0.7, 0.2, 0.05], jnp.float64)

    def f(x, coefficients):
      return jnp.sin(layer(degree, coefficients, blend)(x)).sum()

    for argument, value in enumerate((x, coefficients)):
      gradient = np.asarray(jax.grad(f, argument)(x, coefficients)).ravel()
      flat = np.asarray(value).ravel()
      for i in range(flat.size):
        step = np.zeros_like(flat)
        step[i] = 1e-6
        args = [[x, coefficients], [x, coefficients]]
        for sign, list_ in zip((1, -1), args):
          list_[argument] = jnp.asarray((flat + sign * step).reshape(value.shape))
        numeric = (f(*args[0]) - f(*args[1])) / 2e-6
        np.testing.assert_allclose(gradient[i], numeric, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize('per_channel', [False, True])
@pytest.mark.parametrize('shape', [(5,), (4, 5), (3, 4, 4, 5)])
def test_gradients_of_a_polynomial_are_those_of_autodiff(shape, per_channel):
  keys = jax.random.split(jax.random.key(0), 3)
  # Two members, as a population maps them.
  z, w = (jax.random.normal(key, (2, *shape)) for key in keys[:2])
  c = jax.random.normal(keys[2], (2, 5, 4) if per_channel else (2, 4))

  def horner(c, z):
    return ((c[..., 3] * z + c[..., 2]) * z + c[..., 1]) * z + c[..., 0]

  found, expected = (
    jax.vmap(jax.grad(lambda c, z, w, f=f: (f(c, z) * w).sum(), (0, 1)))(c, z, w)
    for f in (activation.evaluate, horner)
  )
  for ours, theirs in zip(found, expected):
    np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=1e-4)


def test_infinite_unmasked_inputs_leave_gradients_finite():
  x = jnp.asarray([[1.0, 3e38, -1.0]])
  gradient = jax.grad(lambda x, c: layer(3, c)(x)[0, 0] + layer(3, c)(x)[0, 2], 1)(x, jnp.ones(4))
  assert np.isfinite(gradient).all()
  gradient = jax.grad(lambda x: layer(3)(x).sum())(x * 1e5)
  assert np.isfinite(np.asarray(gradient)[0, 1])


def test_leading_coefficient_stays_above_its_floor_with_a_live_gradient():
  for raw in (-1.0, 0.0, 0.001, 0.5):
    used = activation.effective(jnp.asarray([0.0, 0.0, raw, 0.0]), jnp.int32(2))[2]
    assert used >= activation.LEADING_FLOOR
    slope = jax.grad(lambda c: activation.effective(c, jnp.int32(2))[2])(
      jnp.asarray([0.0, 0.0, raw, 0.0])
    )
    assert abs(slope[2]) == 1
  assert activation.effective(jnp.asarray([0, 0, 0.25, 1.0]), jnp.int32(2))[2] == pytest.approx(
    0.25
  )


def test_initial_polynomial_is_the_least_squares_fit_of_relu():
  x = np.random.default_rng(0).normal(size=400_000)
  basis = np.stack([x**j for j in range(4)], 1)
  fit = np.linalg.lstsq(basis, np.maximum(x, 0), rcond=None)[0]
  np.testing.assert_allclose(activation.INITIAL, fit, atol=5e-3)


def test_blend_moves_from_relu_to_the_polynomial():
  x = jnp.asarray([[0.7, 0.7, -0.7]])
  relu, polynomial = jax.nn.relu(x), layer(2)(x)
  np.testing.assert_allclose(layer(2, blend=1.0)(x), relu, atol=1e-6)
  np.testing.assert_allclose(layer(2, blend=0.25)(x), 0.25 * relu + 0.75 * polynomial, rtol=1e-5)


def test_beyond_its_bound_a_polynomial_is_constant_and_a_relu_is_not():
  bounded = layer(3).replace(bound=2.0)
  x = jnp.asarray([[9.0, 9.0, -9.0], [1.5, -1.0, -2.0]])
  within = jnp.asarray([[2.0, 9.0, -2.0], [1.5, -1.0, -2.0]])
  np.testing.assert_array_equal(bounded(x), layer(3)(within))
  gradient = jax.grad(lambda x: bounded(x).sum())(x)
  assert (gradient[0] == jnp.asarray([0.0, 1.0, 0.0])).all() and gradient[1, 0] != 0


def test_range_penalty_is_of_the_largest_replaced_value_of_an_image():
  x = jnp.asarray([[[5.0, 100.0, -3.0], [-9.0, 0.0, 1.0]], [[1.0, 50.0, 2.0], [0.0, 0.0, 0.0]]])
  # Channel 1 is kept; the images' excess beyond 3 is 6 and none.
  assert activation.range_penalty((x,), (layer(2),), 3.0) == pytest.approx((6 / 3) ** 2 / 2)


def test_a_fit_is_the_least_squares_quadratic():
  x = jax.random.normal(jax.random.key(0), (200, 500))
  np.testing.assert_allclose(activation.fit(x), activation.INITIAL, atol=5e-3)
  wide = 7 * x + 3
  a = np.stack([np.ones(wide.size), np.ravel(wide), np.square(np.ravel(wide))], 1)
  expected = np.linalg.lstsq(a, np.maximum(np.ravel(wide), 0), rcond=None)[0]
  np.testing.assert_allclose(activation.fit(wide)[:3], expected, rtol=2e-3, atol=1e-3)
  assert np.isfinite(activation.fit(jnp.zeros((4, 3)))).all()


def test_a_polynomial_is_fitted_to_and_blended_with_what_the_network_has():
  exact = exact_activation(layers.Activation(limit=1.0, slope=0.5))
  x = jnp.linspace(-2, 2, 401)
  c0, c1, c2, _ = activation.fit(x, exact)
  expected = np.polyfit(np.asarray(x), np.asarray(exact(x)), 2)
  np.testing.assert_allclose([c2, c1, c0], expected, atol=1e-3)
  start = jnp.asarray([0.0, 0.0, 1.0, 0.0])
  half = activation.Approximation(jnp.asarray([True, False]), jnp.asarray(2), start, blend=0.25)
  two = jnp.stack([x, x], -1)
  np.testing.assert_allclose(half(two, exact)[:, 0], 0.75 * x**2 + 0.25 * exact(x), rtol=1e-5)
  np.testing.assert_array_equal(half(two, exact)[:, 1], exact(x))


def test_fitted_coefficients_follow_the_polynomials_before_them():
  net = architectures.cnn7(width=0.25, input_shape=(8, 8, 1))
  variables = net.init(jax.random.key(0))
  images = jax.random.normal(jax.random.key(1), (32, 8, 8, 1))
  found = activation.fitted_coefficients(net, variables, images)
  inputs = []

  def polynomial(t):
    def activate(x, exact):
      del exact
      inputs.append(x)
      return found[t][0] + found[t][1] * x + found[t][2] * x * x

    return activate

  net.apply(
    variables, images, [polynomial(t) for t in range(7)], train=True, mutable=['batch_stats']
  )
  for x, coefficients in zip(inputs, found):
    np.testing.assert_allclose(coefficients, activation.fit(x), rtol=1e-3, atol=1e-3)


def test_plans_change_without_recompilation():
  net = architectures.cnn7(width=0.25, input_shape=(8, 8, 1))
  variables = net.init(jax.random.key(0))
  ranks = importance.ranks(net, variables)
  coefficients = activation.initial_coefficients(activation_channels(net))
  traces = 0

  @jax.jit
  def logits(plan):
    nonlocal traces
    traces += 1
    approximation = activation.approximate(plan, ranks, coefficients)
    return net.apply(variables, jnp.ones((1, 8, 8, 1)), approximation)

  results = [
    logits(plans.from_twentieths([ratio] * 7, [degree] * 7))
    for ratio, degree in ((0, 2), (10, 2), (20, 3), (5, 0))
  ]
  assert traces == 1
  # Degree 2 and 3 start from the same polynomial; every other pair differs.
  assert not np.allclose(results[0], results[1])
  assert not np.allclose(results[1], results[3])
