"""The approximated activation (the paper's Eq. 2) and its trainable coefficients.

Eq. 2: a channel that the plan replaces is P(x), the polynomial of its layer; the others are
ReLU(x), or what else the network has there.
"""

from collections.abc import Callable

from flax import struct
import jax
from jax import lax
import jax.numpy as jnp

from safenet_jax.approximation import importance, plans
from safenet_jax.models import network as networks

# Least-squares fit of ReLU over N(0, 1): 1/(2 sqrt(2 pi)) + x/2 + x^2/(2 sqrt(2 pi)).
# The cubic term of that fit is zero, so degree 3 starts from the same polynomial.
INITIAL = (0.19947114, 0.5, 0.19947114, 0.0)

# A polynomial of degree 2 is served as a square: the weights before it are scaled by the
# root of its leading coefficient. So that coefficient is kept at or above a floor, by
# default this one.
LEADING_FLOOR = 0.004


class Approximation(struct.PyTreeNode):
  """One activation layer's replacement; `C` is its number of channels.

  mask: bool [C], True where the channel is a polynomial.
  degree: int32 [], 0, 2 or 3; degree 0 prunes the masked channels.
  coefficients: float32 [4] or [C, 4], constant term first, as trained.
  blend: float32 [] or [C], the share of ReLU in the output of replaced channels. Training may
    lower it from 1 to 0 step by step; 0 is the polynomial alone.
  floor: float32 [], least leading coefficient of degree 2, see `effective`.
  bound: the polynomial sees x clipped to [-bound, bound], float [] or [C]; None does not clip.
    Only training clips: a served polynomial cannot, because clipping takes a comparison.
  """

  mask: jax.Array
  degree: jax.Array
  coefficients: jax.Array
  blend: jax.Array | float = 0.0
  floor: jax.Array | float = LEADING_FLOOR
  bound: jax.Array | float | None = None

  def __call__(
    self, x: jax.Array, exact: Callable[[jax.Array], jax.Array] = jax.nn.relu
  ) -> jax.Array:
    """where(mask, P(x), exact(x)) for x [..., C]; ValueError for another C."""
    if self.mask.shape != x.shape[-1:]:
      raise ValueError(f'a mask of shape {self.mask.shape}, want {x.shape[-1:]}: one per channel')
    relu = exact(x)
    # Unmasked entries are zeroed first: inf * 0 in an unused polynomial would
    # turn every gradient into NaN.
    z = jnp.where(self.mask, x, 0.0)
    z = z if self.bound is None else jnp.clip(z, -self.bound, self.bound)
    c = effective(self.coefficients, self.degree, self.floor).astype(x.dtype)
    polynomial = evaluate(c, z)
    blend = jnp.asarray(self.blend, x.dtype)
    return jnp.where(self.mask, polynomial + blend * (relu - polynomial), relu)


@jax.custom_vjp
def evaluate(coefficients: jax.Array, z: jax.Array) -> jax.Array:
  """The polynomial with coefficients [4] or [C, 4], constant term first, at z [..., C].

  Autodiff would sum the gradients of the four coefficients one after another, and read z and
  the cotangent for each. On a CPU that is a sixth of a training step of a narrow network. Here
  they are summed together.
  """
  c0, c1, c2, c3 = (coefficients[..., j] for j in range(4))
  return ((c3 * z + c2) * z + c1) * z + c0


def _evaluate_backward(residuals, cotangent):
  coefficients, z = residuals
  _, c1, c2, c3 = (coefficients[..., j] for j in range(4))
  dtype = jnp.promote_types(z.dtype, jnp.float32)
  terms = [cotangent.astype(dtype)]
  for _ in range(3):
    terms.append(terms[-1] * z)
  # The first axis is summed afterwards, so that threads share its rows.
  axes = range(z.ndim - coefficients.ndim + 1)
  sums = lax.reduce(
    terms, [jnp.zeros((), dtype)] * 4, lambda a, b: [u + v for u, v in zip(a, b)], axes[1:]
  )
  total = jnp.stack([part.sum(axes[:1]) for part in sums], axis=-1)
  slope = (3 * c3 * z + 2 * c2) * z + c1
  return total.astype(coefficients.dtype), cotangent * slope


evaluate.defvjp(lambda c, z: (evaluate(c, z), (c, z)), _evaluate_backward)


def effective(
  coefficients: jax.Array, degree: jax.Array, floor: jax.Array | float = LEADING_FLOOR
) -> jax.Array:
  """The coefficients [..., 4] that are used at a degree.

  Degree 0 uses none of them. Degree 2 uses no cubic one, and its leading
  coefficient c2 becomes floor + |c2 - floor|: c2 itself above `floor`, and its
  mirror image below. The gradient has size one on both sides.
  """
  c0, c1, c2, c3 = (coefficients[..., j] for j in range(4))
  leading = floor + jnp.abs(c2 - floor)
  quadratic = jnp.stack([c0, c1, leading, jnp.zeros_like(c3)], axis=-1)
  return jnp.where(degree == 3, coefficients, jnp.where(degree == 2, quadratic, 0.0))


def initial_coefficients(channels: tuple[int, ...], *, per_channel: bool = False):
  """Tuple of float32 [4] (or [C, 4]) per layer: the least-squares fit of ReLU."""
  start = jnp.asarray(INITIAL, jnp.float32)
  return tuple(jnp.tile(start, (c, 1)) if per_channel else start for c in channels)


def all_relu(channels: tuple[int, ...]) -> tuple[Approximation, ...]:
  """Approximations of layers with these numbers of channels, none of which is replaced."""
  return tuple(
    Approximation(jnp.zeros(count, bool), jnp.asarray(2, jnp.int32), start)
    for count, start in zip(channels, initial_coefficients(channels))
  )


def fit(x: jax.Array, exact: Callable[[jax.Array], jax.Array] = jax.nn.relu) -> jax.Array:
  """The quadratic nearest to ReLU, or to another activation, over values x of any shape.

  float32 [4], constant term first.
  """
  x = x.reshape(-1).astype(jnp.float32)
  scale = jnp.sqrt(jnp.mean(jnp.square(x))) + 1e-6
  z = x / scale
  powers = jnp.stack([jnp.ones_like(z), z, jnp.square(z)])
  # The added diagonal: without it a layer whose inputs are all equal has no solution.
  moments = powers @ powers.T / z.size + 1e-6 * jnp.eye(3)
  c = jnp.linalg.solve(moments, powers @ (exact(x) / scale) / z.size)
  return jnp.stack([c[0] * scale, c[1], c[2] / scale, jnp.zeros_like(scale)])


def fitted_coefficients(
  network: networks.Network, variables, images: jax.Array
) -> tuple[jax.Array, ...]:
  """Tuple of float32 [4] per layer: the exact activation fitted over the layer's inputs.

  Layers are fitted in order, and a layer's inputs are taken behind the polynomials that were
  fitted before it, not behind ReLUs. Squares have heavy tails: some inputs behind them are
  many standard deviations out, and a square that is fitted to them is flatter.

  Args:
    network: whose activations are replaced.
    variables: of the trained all-ReLU network.
    images: normalised, float [B, H, W, C]; a few hundred are enough.
  """

  @jax.jit
  def fitted(variables, images):
    found = []

    def activate(x, exact):
      found.append(fit(x, exact))
      c0, c1, c2, _ = found[-1]
      return (c2 * x + c1) * x + c0

    activations = [activate] * len(networks.activation_channels(network))
    network.apply(variables, images, activations, train=True, mutable=['batch_stats'])
    return tuple(found)

  return fitted(variables, images)


def approximate(
  plan: plans.Plan,
  channel_ranks: tuple[jax.Array, ...],
  coefficients: tuple[jax.Array, ...],
  blend: jax.Array | float = 0.0,
  floor: jax.Array | float = LEADING_FLOOR,
  bound: float | None = None,
) -> tuple[Approximation, ...]:
  """A plan as the argument `approximation` of the network; all arguments may be traced.

  ValueError unless plan, ranks and coefficients are of equally many layers.
  """
  if not len(plan.ratio) == len(plan.degree_index) == len(channel_ranks) == len(coefficients):
    raise ValueError(
      f'{len(plan.ratio)} ratios and {len(plan.degree_index)} degrees for ranks of '
      f'{len(channel_ranks)} layers and coefficients of {len(coefficients)}, want one per layer'
    )
  masks = importance.masks(plan, channel_ranks)
  return tuple(
    Approximation(mask, degree, c, blend, floor, bound)
    for mask, degree, c in zip(masks, plan.degree, coefficients)
  )


def range_penalty(
  preactivations: tuple[jax.Array, ...],
  approximation: tuple[Approximation, ...],
  limit: float,
) -> jax.Array:
  """A penalty for inputs x of polynomials whose |x| is larger than `limit`, float [].

  In each layer, take for each image the largest |x| of the channels that are at least in part
  polynomials. What it
  exceeds `limit` by is divided by `limit` and squared. The penalty is the mean of that over
  images, summed over layers. It looks at the largest values because they are the ones that
  leave the range of fixed point and widen the batch's statistics. They hardly change a mean
  over all values.
  """

  def one(x, layer):
    polynomial = layer.mask & (jnp.asarray(layer.blend) < 1)
    excess = jnp.where(polynomial, jax.nn.relu(jnp.abs(x) - limit), 0.0)
    return jnp.mean(jnp.square(excess.max(tuple(range(1, x.ndim))) / limit))

  return sum(one(x, layer) for x, layer in zip(preactivations, approximation))
