"""Linear layers under encryption: shares of W r for the client's secret r.

    client (r, secret key)                       server (W, public key)

    encrypt_map or draw_map  -- Enc(r) ----->    reply (prepare: once per model)
    decrypt_map: c           <-- masked -----      u

    c + u = W r mod 2^bits, each c uniform and independent of W.

W is the layer's kernel, and c and u are the parties' shares of W r. r is what the client
gives, or is drawn with its ciphertext, which then takes fewer bytes (`drawn_plaintexts`).

An element is off by one with probability about 3.24 sqrt(||w||^2 + 74^2) t / q, where w is the
kernel of its output channel (the 74 comes with a fresh Enc(0), for N = 4096), t = 2^bits is
BFV's plaintext modulus, q its ciphertext modulus, and q / t is 2^24 or more
(`bfv.ring_parameters`); and with 2^-11 because of what replies leave out.

Neither the lengths of messages nor the calls that are made depend on W. SEAL refuses
to multiply by zero. So every kernel polynomial gets 2^bits / 4 added to its coefficient
0. No weight is as large, so that no polynomial is zero. What this adds to the outputs
is the same for all of them, and is subtracted again, noise included.

The upload, and each group of output channels of the reply, carry an identifier
(`messages`) of the key, the parameters, the layer and the caller's tag, by which
a message for another key, layer or tag is refused. A tag is used once with a key.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import itertools
from typing import Any, NamedTuple

import numpy as np

from safenet_jax.crypto import messages
from safenet_jax.crypto.homomorphic import bfv, drawn_plaintexts, packing, replies
from safenet_jax.crypto.randomness import Randomness

_NOISE = 3.24  # deviation of a fresh encryption's noise
_MOST_WRONG = 2.0**-10
# Of a kernel that is not kept ready, so many bytes are at once.
PART_BYTES = 1 << 26


class Weights(NamedTuple):
  """A layer's kernel, or some of its sets of output channels, ready to multiply by."""

  layout: packing.Layout
  groups: range
  multipliers: Sequence[Sequence[Any]]  # [inputs][groups] plaintexts
  offset: Any  # the plaintext that is in all of them

  def parts(self) -> Iterator['Weights']:
    """All of it at once."""
    yield self


@dataclasses.dataclass(frozen=True, eq=False)
class Unprepared:
  """Output groups of a kernel that are made ready part by part for each reply.

  That takes about three times as long as a reply of `Weights`, and no memory between replies.
  """

  context: bfv.Context
  layout: packing.Layout
  kernel: np.ndarray
  groups: range

  def parts(self) -> Iterator[Weights]:
    """Neighbouring groups."""
    size = self.layout.inputs * _multiplier_size(self.context)
    step = max(1, PART_BYTES // size)
    for first in range(self.groups.start, self.groups.stop, step):
      yield _weights(
        self.context,
        self.layout,
        self.kernel,
        range(first, min(first + step, self.groups.stop)),
      )


def layout_of(context: bfv.Context, layer: packing.Convolution) -> packing.Layout:
  """How a layer is packed under these parameters."""
  widths = [int(q).bit_length() for q in context.moduli]
  given = sum(widths)
  reply = given - context.parameters.dropped
  bits = packing.Bits(drawn_plaintexts.width(context), given, reply, len(widths))
  return packing.layout(layer, context.degree, bits)


def upload_size(context: bfv.Context, layer: packing.Convolution, *, drawn: bool = False) -> int:
  """Bytes of `encrypt_map`, or of `draw_map`."""
  layout = layout_of(context, layer)
  if drawn:
    return messages.BYTES + drawn_plaintexts.size(context, layout.uploaded, layout.drawn)
  return messages.BYTES + context.upload_size(layout.uploaded)


def reply_size(context: bfv.Context, layer: packing.Convolution) -> int:
  """Bytes of `reply`."""
  layout = layout_of(context, layer)
  return layout.outputs * _group_size(context, layout)


def _group_size(context: bfv.Context, layout: packing.Layout) -> int:
  return messages.BYTES + replies.size(context, layout.tiles)


def _upload_identifier(key: bytes, layer: packing.Convolution, tag: bytes, drawn: bool) -> bytes:
  kind = b'drawn upload' if drawn else b'upload'
  return messages.identifier(kind, key, repr(layer).encode(), tag)


def _reply_identifier(key: bytes, layer: packing.Convolution, tag: bytes, group: int) -> bytes:
  return messages.identifier(b'reply', key, repr(layer).encode(), tag, b'%d' % group)


def norm_limit(bits: int) -> float:
  """The largest norm that the weights of one output may have in the ring of so many bits."""
  parameters = bfv.ring_parameters(bits)
  return _MOST_WRONG * 2.0**parameters.cipher_bits / (_NOISE * parameters.plain_modulus)


def _fault(parameters: bfv.Parameters, kernel: np.ndarray) -> str | None:
  """Why a kernel cannot be multiplied by under these parameters; None if it can."""
  modulus = parameters.plain_modulus
  if max(int(kernel.max()), -int(kernel.min())) >= modulus // 4:
    return f'weights {kernel.min()} to {kernel.max()}, want below {modulus // 4}'
  norms = (kernel.astype(np.float64) ** 2).reshape(-1, kernel.shape[-1]).sum(0)
  norm = float(np.sqrt(norms.max()))
  wrong = _NOISE * norm * modulus / 2.0**parameters.cipher_bits
  if wrong > _MOST_WRONG:
    return (
      f'weights of norm {norm:.3g} round wrongly with probability {wrong:.2g}, want at most '
      f'{_MOST_WRONG}: smaller weights or a smaller ring'
    )
  return None


def fits(kernel: np.ndarray, bits: int) -> bool:
  """Whether a kernel int64 [..., channels_out] can be served in the ring of so many bits."""
  return _fault(bfv.ring_parameters(bits), kernel) is None


def check(name: str, kernel: np.ndarray, bits: int) -> None:
  """ValueError if a kernel cannot be served in the ring of so many bits; `name` is its layer's."""
  fault = _fault(bfv.ring_parameters(bits), kernel)
  if fault:
    raise ValueError(f'{name}: {fault}')


def _multiplier_size(context: bfv.Context) -> int:
  return 8 * context.degree * context.moduli.size


def prepared_size(
  context: bfv.Context, layer: packing.Convolution, groups: range | None = None
) -> int:
  """Bytes of what `prepare` makes of a kernel, or of some of its output groups."""
  layout = layout_of(context, layer)
  count = layout.outputs if groups is None else len(groups)
  return layout.inputs * count * _multiplier_size(context)


def prepare(
  context: bfv.Context,
  layer: packing.Convolution,
  kernel: np.ndarray,
  groups: range | None = None,
) -> Weights:
  """Brings a kernel to NTT form, once per model; takes `prepared_size` of memory.

  Args:
    context: of `ring_parameters`.
    layer: the layer's shape.
    kernel: int64 [k, k, channels_in / groups, channels_out], below 2^bits / 4.
    groups: which sets of output channels of the layout; all by default.

  Raises:
    ValueError: the kernel has another shape or type, a weight is too large, or
      an element would be off by one with probability above 2^-10.
  """
  return _weights(**vars(unprepared(context, layer, kernel, groups)))


def unprepared(
  context: bfv.Context,
  layer: packing.Convolution,
  kernel: np.ndarray,
  groups: range | None = None,
) -> Unprepared:
  """A kernel that each reply brings to NTT form; arguments and ValueErrors as for `prepare`."""
  if kernel.shape != layer.kernel_shape or kernel.dtype != np.int64:
    raise ValueError(f'kernel {kernel.dtype} {kernel.shape}, want int64 {layer.kernel_shape}')
  if fault := _fault(context.parameters, kernel):
    raise ValueError(fault)
  layout = layout_of(context, layer)
  return Unprepared(context, layout, kernel, range(layout.outputs) if groups is None else groups)


def _weights(
  context: bfv.Context, layout: packing.Layout, kernel: np.ndarray, groups: range
) -> Weights:
  modulus = context.parameters.plain_modulus
  offset = np.zeros(context.degree, np.int64)
  offset[0] = modulus // 4
  multipliers = []
  for packed in layout.pack_kernel(kernel, groups):
    packed = packed + offset
    packed = np.where(packed < 0, packed + modulus, packed).astype(np.uint64)
    multipliers.append([context.multiplier(coefficients) for coefficients in packed])
  shared = context.multiplier(offset.astype(np.uint64))
  return Weights(layout, groups, list(zip(*multipliers)), shared)


def encrypt_map(
  secret: bfv.SecretKey,
  layer: packing.Convolution,
  values: np.ndarray,
  randomness: Randomness,
  tag: bytes,
) -> bytes:
  """Client: Enc(r) for r uint64 [height, width, channels_in] below 2^bits.

  `tag` tells uploads under one key apart: it holds the attempt and the place in the
  network. The server's call and `decrypt_map` get the same tag.

  Raises:
    ValueError: r has another shape or type, or a value is too large.
  """
  modulus = secret.context.parameters.plain_modulus
  if values.shape != layer.input_shape or values.dtype != np.uint64:
    raise ValueError(f'map {values.dtype} {values.shape}, want uint64 {layer.input_shape}')
  if values.max() >= modulus:
    raise ValueError(f'a value of {values.max()}, want below {modulus}')
  layout = layout_of(secret.context, layer)
  return _upload_identifier(secret.fingerprint, layer, tag, False) + secret.encrypt(
    layout.pack_map(values), randomness
  )


def draw_map(
  secret: bfv.SecretKey, layer: packing.Convolution, randomness: Randomness, tag: bytes
) -> tuple[bytes, np.ndarray]:
  """Client: Enc(r) for a fresh uniform r, and r, uint64 [height, width, channels_in].

  `tag` as for `encrypt_map`, and the server's call gets `drawn`.
  """
  layout, modulus = layout_of(secret.context, layer), secret.context.parameters.plain_modulus
  parts: list[drawn_plaintexts.Part] = []

  def draw(plain, free):
    part, found = drawn_plaintexts.draw(secret, plain, free, randomness)
    parts.append(part)
    return found

  unread = randomness.residues(modulus, layer.input_shape)
  values = layout.draw_map(draw, unread)
  header = _upload_identifier(secret.fingerprint, layer, tag, True)
  return header + drawn_plaintexts.encode(secret.context, parts), values


def reply(
  public: bfv.PublicKey,
  weights: Weights | Unprepared,
  upload: bytes,
  randomness: Randomness,
  tag: bytes,
  *,
  drawn: bool = False,
) -> tuple[bytes, np.ndarray]:
  """Server: the reply, which holds W r under a mask, and the server's share u.

  u is uint64 [height, width, channels of the groups].

  Raises:
    ValueError: the upload has a wrong length or a residue beyond its modulus, or is
      of another key, layer or tag.
  """
  layout, context = weights.layout, public.context
  layer, key = layout.convolution, public.fingerprint
  if not weights.groups:
    return b'', np.zeros((*layer.output_shape[:2], 0), np.uint64)
  want = upload_size(context, layer, drawn=drawn)
  if len(upload) != want:
    raise ValueError(f'upload of {len(upload)} bytes, want {want}')
  body = messages.read('upload', upload, _upload_identifier(key, layer, tag, drawn))
  with context.reply_lock:
    if drawn:
      encrypted = drawn_plaintexts.load(context, body, layout.free)
    else:
      encrypted = context.load(body, layout.uploaded)
    found = [_reply(public, part, encrypted, randomness, tag) for part in weights.parts()]
    return b''.join(message for message, _ in found), np.concatenate([u for _, u in found], axis=-1)


def _reply(
  public: bfv.PublicKey,
  weights: Weights,
  encrypted: Sequence[Any],
  randomness: Randomness,
  tag: bytes,
) -> tuple[bytes, np.ndarray]:
  """`reply` to the ciphertexts of an upload."""
  layout, context = weights.layout, public.context
  layer, key = layout.convolution, public.fingerprint
  parts, masks, shapes = [], [], []
  for group, sums in _sums(public, weights, encrypted, randomness):
    places = layout.output_places(group)
    message, mask = replies.mask(context, sums, places.reshape(-1), randomness)
    parts += [_reply_identifier(key, layer, tag, group), message]
    masks.append(mask)
    shapes.append(places.shape)
  share = context.round(np.concatenate(masks, axis=1))
  return b''.join(parts), _join(share, shapes)


def _sums(
  public: bfv.PublicKey, weights: Weights, encrypted: Sequence[Any], randomness: Randomness
) -> Iterator[tuple[int, list[Any]]]:
  """Each set of output channels, with its ciphertext of every tile."""
  layout, size = weights.layout, weights.layout.outputs_of_part
  for part, own in itertools.groupby(weights.groups, lambda group: group // size):
    groups = list(own)
    first = groups[0] - weights.groups.start
    rows = [row[first : first + len(groups)] for row in weights.multipliers]
    starts = ((part * layout.tiles + tile) * layout.inputs for tile in range(layout.tiles))
    tiles = (encrypted[start : start + layout.inputs] for start in starts)
    totals = [public.combine(tile, rows, randomness, weights.offset) for tile in tiles]
    yield from zip(groups, map(list, zip(*totals)))


def decrypt_map(
  secret: bfv.SecretKey, layer: packing.Convolution, message: bytes, tag: bytes
) -> np.ndarray:
  """Client: its share c of the output, uint64 [height, width, channels_out].

  Raises:
    ValueError: the reply has a wrong length or a residue beyond its modulus, or is
      of another key, layer or tag.
  """
  context = secret.context
  if len(message) != reply_size(context, layer):
    raise ValueError(f'reply of {len(message)} bytes, want {reply_size(context, layer)}')
  layout = layout_of(context, layer)
  shares, shapes, start = [], [], 0
  for group in range(layout.outputs):
    places = layout.output_places(group)
    end = start + _group_size(context, layout)
    want = _reply_identifier(secret.fingerprint, layer, tag, group)
    body = messages.read('reply', message[start:end], want)
    shares.append(replies.unmask(secret, body, layout.tiles, places.reshape(-1)))
    shapes.append(places.shape)
    start = end
  return _join(np.concatenate(shares), shapes)


def _join(flat: np.ndarray, shapes: Sequence[tuple[int, ...]]) -> np.ndarray:
  """One map of several groups of channels [h, w, c], which lie in one flat vector."""
  ends = np.cumsum([np.prod(shape) for shape in shapes])
  parts = np.split(flat, ends[:-1])
  return np.concatenate([p.reshape(s) for p, s in zip(parts, shapes)], axis=-1)
