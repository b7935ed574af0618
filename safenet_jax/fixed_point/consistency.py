"""Whether the public parts of a model fit each other.

A reader of a model, be it from a peer or from a file, checks it here before it allocates or
computes anything for it.
"""

import collections
from collections.abc import Mapping
import dataclasses
import itertools
import math

from safenet_jax.crypto import ring
from safenet_jax.fixed_point import pool_tiles, pooling, rings
from safenet_jax.fixed_point.formats import ActivationFormat
from safenet_jax.fixed_point.model import PublicModel
from safenet_jax.models import layers as records
from safenet_jax.models import windows

# Limits on what a model can make its reader allocate. The first is for one feature map, such as
# 1024 x 1024 x 16. The second is for all maps together: a ResNet-50 on 224 x 224 has 2^25 values.
_MAX_VALUES = 1 << 24
_MAX_TOTAL = 1 << 26
# SEAL takes plaintexts of 60 bits, and 2^59 is one.
_MAX_RING = 59
_MAX_FIELD = 1 << 16
# 2^-1000 is still a float.
_MAX_BITS = 1000
_MAX_LAYERS = 1024
# Bits that a local truncation drops.
_MAX_SHIFT = 40
# A kernel, stride or window of any map. Larger ones are limited by the map: beyond twice its side a
# kernel reads nothing but padding.
_MAX_SIDE = 15
# Bits that enter one circuit of each kind of max pool, all kinds together. A circuit is made
# gate by gate, which takes 1.5 s for so many; 2 x 2 maxima of 12 bits have 48.
_MAX_POOL_BITS = 1 << 12


def check(found: PublicModel) -> None:
  """ValueError where the public parts of a model contradict each other, or ask for too much."""

  def need(condition: bool, message: str) -> None:
    if not condition:
      raise ValueError(message)

  need(0 <= found.truncation_bits <= _MAX_BITS, f'2^-{found.truncation_bits} failures')
  need(1 <= found.precision.ring <= _MAX_RING, f'a ring of {found.precision.ring} bits')
  need(all(0 < n <= _MAX_FIELD for n in found.input_shape), f'images {found.input_shape}')
  bits = found.logit_bits
  need(bits is None or 1 <= bits <= found.precision.ring, f'logits of {bits} bits')
  _check_records(found.layers, 0)
  shapes = records.shapes(found.layers, found.input_shape)
  sizes = {'the image': math.prod(found.input_shape)}
  sizes |= {shape.name: math.prod(shape.output_shape) for shape in shapes}
  joined = records.joined_shapes(found.layers, found.input_shape)
  sizes |= {f'Concat {i}': math.prod(shape) for i, shape in enumerate(joined)}
  end = records.output_shape(found.layers, found.input_shape)
  for name, size in sizes.items():
    need(0 < size <= _MAX_VALUES, f'{name} has {size} values, want 1 to {_MAX_VALUES}')
  total = sum(sizes.values())
  need(total <= _MAX_TOTAL, f'{total} values in all, want at most {_MAX_TOTAL}')
  need(bool(shapes) and len(end) == 1, 'no vector of logits at the end')
  for statistics in (found.mean, found.std):
    need(len(statistics) == found.input_shape[-1], f'{len(statistics)} means or deviations')
  need(all(value > 0 for value in found.std), f'deviations {found.std}')
  for fraction in (found.input_fraction, found.output_fraction):
    need(-64 <= fraction <= 64, f'{fraction} fraction bits')
  pools = {s.name: s for s in shapes if isinstance(s.layer, records.Pool)}
  need(found.absorbed <= pools.keys(), 'absorbed pools that do not exist')
  _check_sides(shapes)
  for shape in shapes:
    size = padded_size(shape)
    need(size <= _MAX_VALUES, f'{shape.name} pads to {size} values, want at most {_MAX_VALUES}')
  divisors = {
    name: pooling.divisor(s.layer, windows.of(s.layer, *s.input_shape[:2]))  # may raise
    for name, s in pools.items()
    if isinstance(s.layer, records.AveragePool)
  }
  maxima = {name for name, s in pools.items() if isinstance(s.layer, records.MaxPool)}
  activations = {
    s.name: s
    for s in shapes
    if isinstance(s.layer, records.Activation) or s.name in maxima - found.absorbed
  }
  need(activations.keys() == found.activations.keys(), 'formats of other activations')
  for name, form in found.activations.items():
    _check_format(name, form, activations[name].input_shape, found.precision.ring)
  for name, bits in rings.of(found).values.items():
    if name in found.activations:
      found.activations[name].rescales(bits)  # raises where they do not fit
  kinds = {}
  for form in found.activations.values():
    if form.windows and form.maximum:
      tiles, width = pool_tiles.of(form.windows), form.sign_bits - form.dropped
      kinds[tiles.kind, width] = tiles.words * width
  bits = sum(kinds.values())
  need(bits <= _MAX_POOL_BITS, f'maxima of {bits} bits, want at most {_MAX_POOL_BITS}')
  _check_pools(found, shapes, divisors)


def padded_size(shape: records.LayerShape) -> int:
  """Values of the map that a layer reads, with the zeros around it; 0 of a layer that adds none."""
  layer = shape.layer
  if not isinstance(layer, records.Conv | records.Pool):
    return 0
  around = layer.around if isinstance(layer, records.Conv) else layer.padding
  height, width, channels = shape.input_shape
  return (height + sum(around[0])) * (width + sum(around[1])) * channels


def _check_sides(shapes: tuple[records.LayerShape, ...]) -> None:
  for shape in shapes:
    most = max(2 * max(shape.input_shape[:2]), _MAX_SIDE)
    for field in ('kernel', 'stride', 'window', 'dilation'):
      side = getattr(shape.layer, field, 1)
      if side is not None and side > most:
        raise ValueError(f'{shape.name} has {field} {side}, want at most {most} on its map')
    padding = getattr(shape.layer, 'padding', None) or records.NO_PADDING
    if max(n for axis in padding for n in axis) > most:
      raise ValueError(f'{shape.name} has padding {padding}, want at most {most} on its map')


class _Readers:
  """Operations on the activation whose output a value is, or None.

  count: how many layers read each of them.
  pools: by name of a pool, the activation that it reads.
  """

  def __init__(self):
    self.count: collections.Counter[str | None] = collections.Counter()
    self.pools: dict[str, str | None] = {}

  def conv(self, name, layer, source):
    del name, layer
    self.count[source] += 1

  dense = flatten = gather = pad_shortcut = truncate = constant = conv

  def activation(self, name, layer, source):
    self.conv(name, layer, source)
    return name

  def average_pool(self, name, layer, source):
    self.pools[name] = source
    self.conv(name, layer, source)

  max_pool = average_pool

  def add(self, branch, shortcut):
    self.count.update([branch, shortcut])

  def concat(self, sources):
    self.count.update(sources)


def _check_pools(
  found: PublicModel, shapes: tuple[records.LayerShape, ...], divisors: Mapping[str, int]
) -> None:
  readers, layers = _Readers(), {shape.name: shape.layer for shape in shapes}
  records.run(found.layers, readers, None)
  pools = {}
  for name in found.absorbed:
    source = readers.pools[name]
    if source is None or readers.count[source] > 1:
      raise ValueError(f'{name} is absorbed by no activation')
    pools[source] = layers[name]
    # Its sums of the elements of a field are words of 64 bits until they are reduced.
    modulus = found.activations[source].modulus if found.activations[source].polynomial else 1
    if modulus * divisors.get(name, 1) > 1 << 64:
      raise ValueError(f'{name} adds {divisors[name]} elements of a field of {modulus}')
  for shape in shapes:
    layer, form = shape.layer, found.activations.get(shape.name)
    if isinstance(layer, records.Gather) and layer.stride > 1 and len(shape.input_shape) != 3:
      raise ValueError(f'{shape.name} has a stride over {shape.input_shape}')
    if form is None:
      continue
    rectified = isinstance(layer, records.Activation)
    wanted = pools.get(shape.name) if rectified else layer
    if form.pool != wanted:
      raise ValueError(f'{shape.name} pools by {form.pool}, want {wanted}')
    if form.rectified != rectified:
      raise ValueError(f'{shape.name} is {"" if form.rectified else "not "}rectified')
    limited = isinstance(layer, records.Activation) and layer.limit is not None
    if bool(form.limit) != limited:
      raise ValueError(f'{shape.name} is {layer} with a limit of {form.limit}')


def _check_records(layers: tuple[records.Layer, ...], count: int) -> int:
  for layer in layers:
    count += 1
    if count > _MAX_LAYERS:
      raise ValueError(f'more than {_MAX_LAYERS} layers')
    if isinstance(layer, records.Residual):
      if not layer.branch:
        raise ValueError('a residual without a branch')
      count = _check_records(layer.branch + layer.shortcut, count)
      continue
    if isinstance(layer, records.Gather):
      sizes = 1 <= layer.stride <= _MAX_FIELD and len(layer.channels) <= _MAX_FIELD
      if not sizes or not 0 <= layer.shift <= 64 or not 1 <= layer.factor <= _MAX_FIELD:
        raise ValueError(
          f'Gather with stride {layer.stride}, shift {layer.shift} and factor {layer.factor}'
        )
      continue
    if isinstance(layer, records.Concat):
      count = _check_records(tuple(itertools.chain(*layer.branches)), count)
      continue
    for field in dataclasses.fields(layer):
      value = getattr(layer, field.name)
      # What is no integer, a record checks itself.
      if type(value) is int and not 1 <= value <= _MAX_FIELD:
        raise ValueError(f'{type(layer).__name__} with {field.name} {value}')
    if isinstance(layer, records.Truncate) and layer.shift > _MAX_SHIFT:
      raise ValueError(f'Truncate with shift {layer.shift}')
    if isinstance(layer, records.Constant):
      sizes = len(layer.shape) in (1, 3) and all(1 <= n <= _MAX_FIELD for n in layer.shape)
      if not sizes:
        raise ValueError(f'Constant of shape {str(layer.shape)[:60]}')
  return count


def _check_format(name: str, form: ActivationFormat, shape: tuple[int, ...], bits: int) -> None:
  blocks = form.relu >= 0 and form.polynomial >= 0 and form.relu + form.polynomial == shape[-1]
  if not blocks or form.map_shape != shape[:-1]:
    raise ValueError(f'{name} is {form.map_shape} of {form.relu} and {form.polynomial} channels')
  if form.polynomial and form.degree not in (2, 3):
    raise ValueError(f'{name} is of degree {form.degree}')
  if form.pool is not None and len(form.map_shape) != 2:
    raise ValueError(f'{name} has a pool of {form.map_shape}')
  # The slope's bound is that of the record, with bits enough for any.
  if not 0 <= form.slope_bits <= 16 or abs(form.slope) > 1 << form.slope_bits:
    raise ValueError(f'{name} has a slope of {form.slope} / 2^{form.slope_bits}')
  if form.polynomial and form.modulus not in (ring.PRIME_35, ring.PRIME_41, ring.PRIME_50):
    raise ValueError(f'{name} computes in a field of {form.modulus} elements')
  fractions = (
    form.input_fraction,
    form.shift,
    form.value_fraction,
    form.output_fraction,
    form.dropped,
  )
  if not all(-128 <= value <= 128 for value in fractions):
    raise ValueError(f'{name} has {fractions} fraction bits')
  if not (0 <= form.sign_bits <= 64 and 0 <= form.select_bits <= 64):
    raise ValueError(f'{name} has {form.sign_bits} and {form.select_bits} bits, want up to 64')
  if form.general and form.degree != 2:
    raise ValueError(f'{name} is of general degree {form.degree}')
  top = form.limit >> max(form.dropped, 0)
  if form.limit and not 0 < top < 1 << max(form.sign_bits - form.dropped - 1, 0):
    raise ValueError(f'{name} has a limit of {form.limit} in {form.sign_bits} bits')
  if isinstance(form.pool, records.MaxPool):
    # The circuit grows with the window, and nothing else limits the window.
    odd = form.polynomial or form.slope or form.slope_bits or form.limit
    if odd or not 0 <= form.dropped < form.sign_bits < bits or form.pool.window > 16:
      raise ValueError(
        f'{name} takes maxima of {form.polynomial} polynomial channels, '
        f'{form.sign_bits} bits and a window of {form.pool.window}'
      )
    if form.select_bits != form.sign_bits - form.dropped + 1:
      raise ValueError(f'{name} has maxima of {form.select_bits} bits')
  elif form.relu and not 0 <= form.dropped < form.sign_bits <= form.select_bits < bits:
    raise ValueError(f'{name} selects {form.sign_bits} bits in a ring of {form.select_bits}')
  form.rescales(bits)  # raises where they do not fit
