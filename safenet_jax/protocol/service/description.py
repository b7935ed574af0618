"""What a client learns of the served model, and nothing else of it.

These are the layer records, which channels are garbled or polynomial and of
which degree, the formats, and how images are normalised. Kernels, biases,
coefficients and the limbs that follow from their sizes stay with the server.
"""

from collections.abc import Sequence
import dataclasses
import math
from typing import NamedTuple

from safenet_jax.crypto import ring
from safenet_jax.crypto.randomness import Randomness
from safenet_jax.fixed_point.formats import ActivationFormat, Precision
from safenet_jax.fixed_point.model import FixedPointModel
from safenet_jax.models import layers as records
from safenet_jax.protocol.layers import structure as structures
from safenet_jax.transport import record_codec
from safenet_jax.transport.frames import ProtocolError

# How linear layers are served, see `modes`.
MODES = ('delphi', 'gazelle')
_ID_BYTES = 16
# Fields that no model has.
_OF_THE_SERVER = 'model_id', 'mode', 'outputs', 'batch'
# What a description may make a client allocate: a feature map of 1024 x 1024 x 16, and
# all maps of a network (a ResNet-50 on 224 x 224 has 2^25 values).
_MAX_VALUES = 1 << 24
_MAX_TOTAL = 1 << 26
# SEAL takes plaintexts of 60 bits, and 2^59 is one.
_MAX_RING = 59
_MAX_FIELD = 1 << 16
# An exponent that a float holds.
_MAX_BITS = 1000
_MAX_LAYERS = 4096


@dataclasses.dataclass(frozen=True)
class Description:
  """The public part of a `FixedPointModel`, whose fields it has.

  model_id: 16 random bytes drawn when the server loads the model. A hash of the
    weights would let clients confirm guesses.
  mode: how linear layers are served, of `MODES`.
  outputs: those of `structure.OUTPUTS` that clients get.
  batch: images that a client is to prepare at once, so that the server has room for
    those of as many clients as it takes.
  """

  model_id: bytes
  layers: tuple[records.Layer, ...]
  input_shape: tuple[int, int, int]
  mean: tuple[float, ...]
  std: tuple[float, ...]
  precision: Precision
  activations: dict[str, ActivationFormat]
  absorbed: frozenset[str]
  input_fraction: int
  output_fraction: int
  truncation_bits: int
  logit_bits: int | None
  mode: str
  outputs: tuple[str, ...]
  batch: int

  def client_model(self) -> FixedPointModel:
    """The model as its client has it: without weights and coefficients."""
    fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
    for name in _OF_THE_SERVER:
      del fields[name]
    return FixedPointModel(linear={}, polynomials={}, **fields)


# What the public part of a model is made of.
RECORDS = (
  Precision,
  ActivationFormat,
  records.Conv,
  records.Dense,
  records.Activation,
  records.AveragePool,
  records.MaxPool,
  records.Flatten,
  records.PadShortcut,
  records.Residual,
  records.Gather,
)
_RECORDS = (Description, *RECORDS)


def describe(
  model: FixedPointModel,
  randomness: Randomness,
  mode: str = 'delphi',
  outputs: Sequence[str] | None = None,
) -> Description:
  """The description of a model that a server has loaded, under a new id.

  Clients may have all outputs that there are, or those of `outputs`. ValueError for
  modes or outputs that do not exist.
  """
  if mode not in MODES:
    raise ValueError(f'mode {mode!r}, want one of {", ".join(MODES)}')
  fields = {
    f.name: getattr(model, f.name)
    for f in dataclasses.fields(Description)
    if f.name not in _OF_THE_SERVER
  }
  found = structures.outputs(model) if outputs is None else tuple(outputs)
  if not _are_outputs(found):
    raise ValueError(f'outputs {found}, want some of {", ".join(structures.OUTPUTS)}')
  return Description(
    model_id=randomness.bytes(_ID_BYTES), mode=mode, outputs=found, batch=1, **fields
  )


def _are_outputs(found: tuple[str, ...]) -> bool:
  return 0 < len(found) == len(set(found)) and set(found) <= set(structures.OUTPUTS)


def encode(description: Description) -> bytes:
  """Bytes for the wire."""
  return record_codec.encode(description, _RECORDS)


def _check_service(found: Description) -> None:
  """ValueError where what a server says of itself makes no sense."""
  if found.mode not in MODES:
    raise ValueError(f'an unknown mode {found.mode[:20]!r}')
  if not _are_outputs(found.outputs):
    raise ValueError(f'outputs {str(found.outputs)[:60]}')
  if len(found.model_id) != _ID_BYTES:
    raise ValueError(f'an id of {len(found.model_id)} bytes')
  if not 1 <= found.batch <= _MAX_FIELD:
    raise ValueError(f'batches of {found.batch} images')


def decode(raw: bytes) -> Description:
  """The description that a server sent, or ProtocolError where it makes no sense."""
  found = record_codec.decode(raw, Description, _RECORDS)
  try:
    _check_service(found)
    check(found)
  except ValueError as error:
    raise ProtocolError(f'the description of the model: {error}') from None
  return found


class Expectation(NamedTuple):
  """What a client insists on; None is anything. Fields are those of `Description`.

  outputs: all of them have to be served, beside others.
  """

  model_id: bytes | None = None
  layers: tuple[records.Layer, ...] | None = None
  input_shape: tuple[int, int, int] | None = None
  precision: Precision | None = None
  activations: dict[str, ActivationFormat] | None = None
  outputs: tuple[str, ...] | None = None

  def mismatch(self, found: Description) -> str | None:
    """The first thing that is not as expected, in one line."""
    if self.model_id is not None and self.model_id != found.model_id:
      return f'model {found.model_id.hex()}, want {self.model_id.hex()}'
    if self.outputs is not None and not set(self.outputs) <= set(found.outputs):
      return f'outputs {", ".join(found.outputs)}, want {", ".join(self.outputs)}'
    if self.layers is not None and self.layers != found.layers:
      if len(self.layers) != len(found.layers):
        return f'architecture of {len(found.layers)} layers, want {len(self.layers)}'
      i = next(i for i, pair in enumerate(zip(self.layers, found.layers)) if pair[0] != pair[1])
      return f'architecture: layer {i} is {found.layers[i]}, want {self.layers[i]}'
    for name, wanted in self._asdict().items():
      if wanted is not None and name not in ('model_id', 'layers', 'activations', 'outputs'):
        got = getattr(found, name)
        if got != wanted:
          return f'formats: {name} {got}, want {wanted}'
    if self.activations is not None and self.activations != found.activations:
      return _formats(self.activations, found.activations)
    return None


def _formats(wanted: dict[str, ActivationFormat], found: dict[str, ActivationFormat]) -> str:
  if wanted.keys() != found.keys():
    return f'formats of {len(found)} activation layers, want {len(wanted)}'
  name = next(name for name in wanted if wanted[name] != found[name])
  field, got, want = next(
    (f.name, getattr(found[name], f.name), getattr(wanted[name], f.name))
    for f in dataclasses.fields(ActivationFormat)
    if getattr(found[name], f.name) != getattr(wanted[name], f.name)
  )
  return f'formats: {name} has {field} {got}, want {want}'


def check(found: Description | FixedPointModel) -> None:
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
  for shape in shapes:
    size = math.prod(shape.output_shape)
    need(0 < size <= _MAX_VALUES, f'{shape.name} has {size} values, want 1 to {_MAX_VALUES}')
  total = sum(math.prod(shape.output_shape) for shape in shapes)
  need(total <= _MAX_TOTAL, f'{total} values in all, want at most {_MAX_TOTAL}')
  need(bool(shapes) and len(shapes[-1].output_shape) == 1, 'no vector of logits at the end')
  for statistics in (found.mean, found.std):
    need(len(statistics) == found.input_shape[-1], f'{len(statistics)} means or deviations')
  need(all(value > 0 for value in found.std), f'deviations {found.std}')
  for fraction in (found.input_fraction, found.output_fraction):
    need(-64 <= fraction <= 64, f'{fraction} fraction bits')
  pools = {s.name: s for s in shapes if isinstance(s.layer, records.Pool)}
  need(found.absorbed <= pools.keys(), 'absorbed pools that do not exist')
  maxima = {name for name, s in pools.items() if isinstance(s.layer, records.MaxPool)}
  need(maxima <= found.absorbed, 'max pools that no activation has absorbed')
  activations = {s.name: s for s in shapes if isinstance(s.layer, records.Activation)}
  need(activations.keys() == found.activations.keys(), 'formats of other activations')
  for name, form in found.activations.items():
    _check_format(name, form, activations[name].input_shape, found.precision.ring)
  _check_pools(found, shapes)


def _check_pools(
  found: Description | FixedPointModel, shapes: tuple[records.LayerShape, ...]
) -> None:
  for before, shape in zip([None, *shapes], shapes):
    layer = shape.layer
    if isinstance(layer, records.Gather) and layer.stride > 1 and len(shape.input_shape) != 3:
      raise ValueError(f'{shape.name} has a stride over {shape.input_shape}')
    after_activation = before is not None and isinstance(before.layer, records.Activation)
    if shape.name in found.absorbed and not after_activation:
      raise ValueError(f'{shape.name} is absorbed by no activation')
  for shape, after in zip(shapes, [*shapes[1:], None]):
    if isinstance(shape.layer, records.Activation):
      form, wanted = found.activations[shape.name], (1, False)
      pool = after.layer if after is not None and after.name in found.absorbed else None
      if after is not None and isinstance(pool, records.Pool):
        window = records.window(pool, *after.input_shape[:2])
        wanted = window, isinstance(pool, records.MaxPool)
      if (form.window, form.maximum) != wanted:
        raise ValueError(f'{shape.name} pools by {form.window}, {form.maximum}, want {wanted}')


def _check_records(layers: tuple[records.Layer, ...], count: int) -> int:
  for layer in layers:
    count += 1
    if count > _MAX_LAYERS:
      raise ValueError(f'more than {_MAX_LAYERS} layers')
    if isinstance(layer, records.Residual):
      count = _check_records(layer.branch + layer.shortcut, count)
      continue
    if isinstance(layer, records.Gather):
      sizes = 1 <= layer.stride <= _MAX_FIELD and len(layer.channels) <= _MAX_FIELD
      if not sizes or not 0 <= layer.shift <= 64:
        raise ValueError(f'Gather with stride {layer.stride} and shift {layer.shift}')
      continue
    for field in dataclasses.fields(layer):
      value = getattr(layer, field.name)
      if value is not None and not isinstance(value, bool) and not 1 <= value <= _MAX_FIELD:
        raise ValueError(f'{type(layer).__name__} with {field.name} {value}')
  return count


def _check_format(name: str, form: ActivationFormat, shape: tuple[int, ...], bits: int) -> None:
  blocks = form.relu >= 0 and form.polynomial >= 0 and form.relu + form.polynomial == shape[-1]
  if not blocks or form.map_shape != shape[:-1]:
    raise ValueError(f'{name} is {form.map_shape} of {form.relu} and {form.polynomial} channels')
  if form.polynomial and form.degree not in (2, 3):
    raise ValueError(f'{name} is of degree {form.degree}')
  if form.window < 1 or any(size % form.window for size in form.map_shape):
    raise ValueError(f'{name} has a pool of window {form.window}')
  if form.polynomial and form.modulus not in (ring.PRIME_41, ring.PRIME_50):
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
  if form.general and form.degree != 2:
    raise ValueError(f'{name} is of general degree {form.degree}')
  if form.maximum:
    # The bits of a circuit grow with the window, and nothing else bounds it.
    if form.polynomial or not 0 <= form.dropped < form.sign_bits < bits or form.window > 16:
      raise ValueError(
        f'{name} takes maxima of {form.polynomial} polynomial channels, '
        f'{form.sign_bits} bits and a window of {form.window}'
      )
    if form.select_bits != form.sign_bits - form.dropped + 1:
      raise ValueError(f'{name} has maxima of {form.select_bits} bits')
  elif form.relu and not 0 <= form.dropped < form.sign_bits <= form.select_bits < bits:
    raise ValueError(f'{name} selects {form.sign_bits} bits in a ring of {form.select_bits}')
  form.rescales(bits)  # raises where they do not fit
