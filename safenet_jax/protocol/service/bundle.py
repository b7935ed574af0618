"""A served model in one file: what `quantize` returns, private weights included.

  magic, version, header length       16 bytes, big-endian
  header      a `Bundle` record, as `record_codec` writes it
  arrays      one after another, C order, little-endian
  checksum    SHA-256 of all that is before it

A server needs nothing else, neither JAX nor the float network. The checksum finds
damage. It does not show who wrote the file: that is for the file's owner to see to.
What is read from a file is checked like what a peer sends. Records are made by a
whitelist of classes, sizes are checked before that many bytes are read, and then the
values of every array are checked.
"""

from collections.abc import Iterator
import dataclasses
import hashlib
import math
import os
import struct
from typing import BinaryIO

import numpy as np

from safenet_jax import atomic_files
from safenet_jax.crypto import ring
from safenet_jax.fixed_point import consistency
from safenet_jax.fixed_point import model as models
from safenet_jax.fixed_point.model import FixedPointModel, LinearWeights, PublicModel, RECORDS
from safenet_jax.models import layers as records
from safenet_jax.protocol.layers.structure import Structure
from safenet_jax.transport import frames, record_codec
from safenet_jax.transport.frames import ProtocolError

VERSION = 4
_PREFIX = struct.Struct('>8sII')
_MAGIC = b'safenet\x00'
_DIGEST = hashlib.sha256().digest_size
# A ResNet's header takes 20 kB.
_MAX_HEADER = 1 << 20
# They take 2 GiB as int64. A VGG-16 for 224 x 224 has half as many.
_MAX_WEIGHTS = 1 << 28
# An array is stored in the narrowest of these that holds its values.
_DTYPES = 'int16', 'int32', 'int64'


@dataclasses.dataclass(frozen=True)
class Stored:
  """One array of the file."""

  name: str
  dtype: str
  shape: tuple[int, ...]

  @property
  def size(self) -> int:
    """Bytes in the file."""
    return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclasses.dataclass(frozen=True)
class Bundle:
  """The header: the public part of a model, and which arrays of weights follow."""

  model: PublicModel
  arrays: tuple[Stored, ...]


_RECORDS = (Bundle, Stored, *RECORDS)


def save(path: str | os.PathLike[str], model: FixedPointModel) -> None:
  """Writes a model to a file that only its owner may read (mode 0600).

  A file that is there already is replaced once the new one is complete and on the disk.

  Raises:
    ValueError: `load` would refuse the model, or the file cannot be written there.
  """
  models.check(model)
  public = model.public
  consistency.check(public)
  found, wanted = dict(_arrays(model)), _wanted(public)
  _model(public, found, wanted)
  narrow = {name: found[name].astype(_narrowest(found[name])) for name in wanted}
  table = tuple(Stored(name, a.dtype.name, tuple(a.shape)) for name, a in narrow.items())
  header = record_codec.encode(Bundle(public, table), _RECORDS)
  parts = [_PREFIX.pack(_MAGIC, VERSION, len(header)), header]
  parts += [np.ascontiguousarray(array).tobytes() for array in narrow.values()]
  digest = hashlib.sha256(b''.join(parts)).digest()
  try:
    with atomic_files.writing(path, private=True) as file:
      file.writelines([*parts, digest])
  except OSError as error:
    raise ValueError(f'{path} cannot be written: {error.strerror}') from None


def load(path: str | os.PathLike[str]) -> FixedPointModel:
  """Reads what `save` wrote.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file cannot be read, was not written by `save`, has another version
      of the format, is damaged or cut short, or describes a model that makes no sense.
      The error is one line.
  """
  try:
    with open(path, 'rb') as file:
      return _read(file)
  except FileNotFoundError:
    raise FileNotFoundError(f'no model bundle at {path}') from None
  except OSError as error:
    raise ValueError(f'{path} cannot be read: {error.strerror}') from None
  except (ValueError, ProtocolError) as error:
    raise ValueError(f'{path} is no model to serve: {frames.printable(str(error))}') from None


def _read(file: BinaryIO) -> FixedPointModel:
  total = os.fstat(file.fileno()).st_size
  prefix = file.read(_PREFIX.size)
  if len(prefix) < _PREFIX.size or not prefix.startswith(_MAGIC):
    raise ValueError('it is not a model bundle, or was cut short')
  _, version, length = _PREFIX.unpack(prefix)
  if version != VERSION:
    raise ValueError(f'version {version} of the format, want {VERSION}')
  if not 0 < length <= min(total, _MAX_HEADER):
    raise ValueError(f'a header of {length} bytes in a file of {total}')
  header = file.read(length)
  bundle = record_codec.decode(header, Bundle, _RECORDS)
  public = bundle.model
  consistency.check(public)
  wanted = _wanted(public)
  _check_table(bundle.arrays, wanted)
  size = sum(stored.size for stored in bundle.arrays)
  whole = _PREFIX.size + length + size + _DIGEST
  if total != whole:
    raise ValueError(f'a file of {total} bytes, want {whole}: it was cut short, or is damaged')
  body = file.read(size)
  if hashlib.sha256(prefix + header + body).digest() != file.read(_DIGEST):
    raise ValueError('its checksum is another: it is damaged')
  arrays, start = {}, 0
  for stored in bundle.arrays:
    little = np.dtype(stored.dtype).newbyteorder('<')
    flat = np.frombuffer(body, little, math.prod(stored.shape), start)
    arrays[stored.name] = flat.reshape(stored.shape).astype(np.int64)
    start += stored.size
  return _model(public, arrays, wanted)


def _arrays(model: FixedPointModel) -> Iterator[tuple[str, np.ndarray]]:
  for name, weights in model.linear.items():
    yield f'{name}/kernel', weights.kernel
    yield f'{name}/bias', weights.bias
  for name, coefficients in model.polynomials.items():
    yield f'{name}/coefficients', coefficients
  for name, values in model.constants.items():
    yield f'{name}/values', values


def _wanted(public: PublicModel) -> dict[str, tuple[int, ...]]:
  """Shape of every array that a model has, in the order in which its layers are walked."""
  found: dict[str, tuple[int, ...]] = {}
  for shape in records.shapes(public.layers, public.input_shape):
    match shape.layer:
      case records.Conv(kernel=kernel, groups=groups):
        found[f'{shape.name}/kernel'] = (
          kernel,
          kernel,
          shape.input_shape[-1] // groups,
          shape.output_shape[-1],
        )
        found[f'{shape.name}/bias'] = shape.output_shape[-1:]
      case records.Dense():
        found[f'{shape.name}/kernel'] = (*shape.input_shape, *shape.output_shape)
        found[f'{shape.name}/bias'] = shape.output_shape
      case records.Constant():
        found[f'{shape.name}/values'] = shape.output_shape
      case records.Activation():
        form = public.activations[shape.name]
        if form.polynomial:
          found[f'{shape.name}/coefficients'] = (form.degree + 1, form.polynomial)
  weights = sum(math.prod(shape) for shape in found.values())
  if weights > _MAX_WEIGHTS:
    raise ValueError(f'{weights} weights, want at most {_MAX_WEIGHTS}')
  return found


def _check_table(table: tuple[Stored, ...], wanted: dict[str, tuple[int, ...]]) -> None:
  names = [stored.name for stored in table]
  if names != list(wanted):
    odd = sorted(set(names) ^ set(wanted)) or ['in another order']
    raise ValueError(f'{len(names)} arrays, want {len(wanted)}: {", ".join(odd)[:100]}')
  for stored in table:
    if stored.dtype not in _DTYPES:
      raise ValueError(f'{stored.name} of dtype {stored.dtype[:20]!r}, want one of {_DTYPES}')
    if stored.shape != wanted[stored.name]:
      raise ValueError(f'{stored.name} of shape {stored.shape}, want {wanted[stored.name]}')


def _model(
  public: PublicModel, arrays: dict[str, np.ndarray], wanted: dict[str, tuple[int, ...]]
) -> FixedPointModel:
  """The whole model; ValueError where an array is not what the layers need."""
  if odd := sorted(set(arrays) - set(wanted)):
    raise ValueError(f'arrays of layers that do not exist: {", ".join(odd)[:100]}')
  for name, shape in wanted.items():
    array = arrays.get(name)
    if array is None or array.shape != shape or array.dtype != np.int64:
      got = 'missing' if array is None else f'{array.dtype} {array.shape}'
      raise ValueError(f'{name} is {got}, want int64 {shape}')
    _check_values(public, name, array)
  linear, polynomials, constants = {}, {}, {}
  for found in records.shapes(public.layers, public.input_shape):
    name = found.name
    if f'{name}/kernel' in arrays:
      kernel = arrays[f'{name}/kernel']
      linear[name] = LinearWeights(kernel, arrays[f'{name}/bias'], ring.limb_bits(kernel))
    elif f'{name}/coefficients' in arrays:
      polynomials[name] = arrays[f'{name}/coefficients']
    elif f'{name}/values' in arrays:
      constants[name] = arrays[f'{name}/values']
  Structure.of(public)  # raises where two parties could not serve it
  return FixedPointModel(public, linear, polynomials, constants)


def _check_values(public: PublicModel, name: str, array: np.ndarray) -> None:
  layer, _, kind = name.partition('/')
  form, bits = public.activations.get(layer), public.precision.ring
  if kind == 'kernel':
    bits = public.rings.get(layer, bits)
  # A kernel's limit is that of `encrypted_convolution.prepare`. A bias has to fit the ring of
  # linear layers, and a coefficient its field.
  limit = form.modulus if form else 1 << (bits - 2 if kind == 'kernel' else bits - 1)
  if max(int(array.max()), -int(array.min())) >= limit:
    raise ValueError(f'{name} from {array.min()} to {array.max()}, want below {limit}')
  if form and form.monic and (array[2] != 1).any():
    raise ValueError(f'{name} has leading coefficients other than the 1 of folded squares')


def _narrowest(array: np.ndarray) -> np.dtype:
  low, high = int(array.min()), int(array.max())
  dtypes = [np.dtype(name).newbyteorder('<') for name in _DTYPES]
  return next(d for d in dtypes if np.iinfo(d).min <= low and high <= np.iinfo(d).max)
