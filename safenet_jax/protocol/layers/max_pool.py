"""Max pools: one circuit takes ReLU(max) of some windows, behind garbled channels.

The inputs are y = c + s, of which the client has the shares c and the server the shares
s. The circuit adds both shares, takes the largest value of each window, applies ReLU, and
adds a mask M that the server draws. It computes on words of w = k - t bits: the low k bits
of a share, without the lowest t. `fixed_point.pool_tiles` says which windows it has.

In the mode `ot` maxima are compared without circuits (`maximum_tree`).

A max pool that is no part of an activation has the same circuit without ReLU. Its inputs may
be the output of activations: then c is the mask r of `truncation`, and s is m.

             client (evaluator)                       server (garbler)
  offline                                             M uniform, garbles ReLU(max(c + s)) + M
               <- tables, labels of M, decoding -----
               <-- labels of its bits of c, by OT ---
  online       <---- labels of its bits of s --------
             evaluates, decodes: v                    rho = -M

OT is oblivious transfer: the client gets the labels of its own bits, and the server does
not learn those bits. v (client) and rho (server) are shares of the output:
v + rho = ReLU(max) in the ring of w + 1 bits, at the output's fraction bits.

Each party shifts its share right by t, as for a sign test. That rounds down, which loses
half a unit of the result for each party on average. The server adds one for both halves.
The result is at most one unit from the largest value. The exact truncation follows with
nothing to drop: its messages only bring the shares to the linear ring.

What the client sees: the labels of M and of s are one of each pair, and uniform.
`Encoding.decoding` says which value each output label stands for, so the client learns
the output word v = ReLU(max) + M. It is uniform whatever the values are, because M is
uniform and fresh. Nothing else that the client sees depends on M: the other labels of
the output wires are hidden by the hash, as all labels are that the client does not hold.
"""

from collections.abc import Sequence
import functools
from typing import NamedTuple

import numpy as np

from safenet_jax.crypto import hashing, ring
from safenet_jax.crypto.garbled_circuits import circuits, garbling, wires
from safenet_jax.crypto.randomness import Randomness
from safenet_jax.fixed_point import pool_tiles
from safenet_jax.fixed_point.formats import ActivationFormat
from safenet_jax.fixed_point.pool_tiles import Tiles
from safenet_jax.protocol.layers import blocks
from safenet_jax.protocol.layers.blocks import Block

# Circuits of a window in a block: they are an order of magnitude larger than sign tests. The
# tables of a block of larger ones are at most twice as much, up to 70 MB.
MAX_BLOCK = hashing.MAX_ROWS // 4


def circuit(form: ActivationFormat) -> circuits.Circuit:
  """ReLU(max) + mask of the windows of a tile, on words of w = k - t bits.

  The inputs 'client' and 'server' hold the tile's words one after another. 'mask' and
  the output hold a word of w + 1 bits for each window.

  Each sum takes w - 1 ANDs, each maximum of two 2 w, the ReLU of a window w - 1, and its
  mask w. For windows of 2 x 2 that do not overlap these are 12 w - 5.
  """
  kind, width = _tiles(form).kind, form.sign_bits - form.dropped
  return _circuit(kind, width, form.select_bits, form.rectified)


@functools.lru_cache(maxsize=64)
def _circuit(
  kind: tuple[int, ...], width: int, select_bits: int, rectified: bool
) -> circuits.Circuit:
  side, high, wide, down, right = kind
  rows, columns = high + (side - 1) * down, wide + (side - 1) * right
  builder = circuits.Builder()
  client = builder.input('client', rows * columns * width)
  server = builder.input('server', rows * columns * width)
  mask = builder.input('mask', side**2 * select_bits)
  values = [
    circuits.add(builder, client[first : first + width], server[first : first + width])
    for first in range(0, len(client), width)
  ]
  along = [
    [_largest(builder, values[row * columns + i * right :][:wide]) for i in range(side)]
    for row in range(rows)
  ]
  outputs: list[circuits.Bit] = []
  for i in range(side):
    for j in range(side):
      *bits, sign = _largest(builder, [row[j] for row in along[i * down :][:high]])
      if rectified:
        bits = [builder.and_(bit, builder.not_(sign)) for bit in bits]
        sign = False
      first = len(outputs)
      extended = [*bits, *[sign] * (select_bits - len(bits))]
      outputs += circuits.add(builder, mask[first : first + select_bits], extended)
  return builder.build(outputs)


def _largest(builder: circuits.Builder, values: Sequence[circuits.Word]) -> circuits.Word:
  while len(values) > 1:
    pairs = zip(values[::2], values[1::2])
    rest = values[len(values) // 2 * 2 :]
    values = [*(circuits.maximum(builder, *pair) for pair in pairs), *rest]
  return values[0]


def _tiles(form: ActivationFormat) -> Tiles:
  if form.windows is None or not form.maximum:
    raise ValueError(f'{form.pool}, want a max pool')
  return pool_tiles.of(form.windows)


def outputs(form: ActivationFormat) -> int:
  """Windows of a circuit."""
  return _tiles(form).outputs


def words(form: ActivationFormat) -> int:
  """Words of each party's share that enter a circuit."""
  return _tiles(form).words


def instances(form: ActivationFormat) -> int:
  """Circuits of a layer of one image."""
  rows, columns = _tiles(form).shape
  return rows * columns * form.relu


def cut(form: ActivationFormat, images: int = 1) -> tuple[Block, ...]:
  """The blocks that hold the circuits of so many images; of large circuits fewer in each."""
  most = min(MAX_BLOCK, 2 * MAX_BLOCK // outputs(form) // 64 * 64)
  return blocks.cut(instances(form) * images, most)


def windows(share: np.ndarray, form: ActivationFormat, *, server: bool) -> np.ndarray:
  """The words of a share [B, H, W, C] that enter the circuits: [words, circuits in order].

  `server` says whose share it is: the server's words get the one for both roundings.
  """
  words = ring.reduce(share, form.sign_bits) >> np.uint64(form.dropped)
  if server and form.dropped:
    words = ring.reduce(words + np.uint64(1), form.sign_bits - form.dropped)
  return _tiles(form).cut(words)


def joined(parts: Sequence[np.ndarray], form: ActivationFormat) -> np.ndarray:
  """A party's share [B, H', W', C], from what it has of each block, uint64 [outputs, count]."""
  return _tiles(form).joined(np.concatenate(parts, axis=1), form.relu)


class ServerBlock(NamedTuple):
  """What the garbler keeps of one block until it is online; used once.

  encoding: the garbler's labels.
  mask: M, uint64 [outputs, count] of so many circuits.
  size: circuits of the block with its padding.
  """

  encoding: garbling.Encoding
  mask: np.ndarray
  size: int

  @property
  def nbytes(self) -> int:
    """Bytes that a server keeps of the block."""
    return self.encoding.nbytes + self.mask.nbytes


class ClientBlock(NamedTuple):
  """What the evaluator keeps of one block; `garbled` is evaluated once.

  labels: of the client's bits of c, uint64 [words w, size, 2].
  mask_labels: of the bits of M, uint64 [outputs (w + 1), size, 2].
  decoding: the values that the output labels of colour 0 stand for, packed:
    uint8 [outputs (w + 1), size / 8].
  """

  garbled: garbling.GarbledBlock
  labels: np.ndarray
  mask_labels: np.ndarray
  decoding: np.ndarray


def offline_server(
  encoding: garbling.Encoding, randomness: Randomness, form: ActivationFormat, count: int
) -> tuple[ServerBlock, np.ndarray, np.ndarray]:
  """The server's state of a garbled block of `count` circuits, and two messages.

  The messages are the labels of M, uint64 [outputs (w + 1), size, 2], and the decoding bits,
  uint8 [outputs (w + 1), size / 8]. The text at the top of this module says why they tell nothing.
  """
  size = encoding.decoding.shape[-1] * 8
  mask = randomness.ring(form.select_bits, (outputs(form), count))
  labels = encoding.labels('mask', blocks.pack(mask, form.select_bits, size))
  return ServerBlock(encoding, mask, size), labels, encoding.decoding


def online_server(
  block: ServerBlock, words: np.ndarray, form: ActivationFormat
) -> tuple[np.ndarray, np.ndarray]:
  """The message and the server's share rho, uint64 [outputs, count].

  The message has the labels of the bits of s, [words w, size, 2]: one of each pair.

  Args:
    block: offline state.
    words: `windows` of s, uint64 [words, count].
    form: of the layer.
  """
  bits = blocks.pack(words, form.sign_bits - form.dropped, block.size)
  labels = block.encoding.labels('server', bits)
  return labels, ring.reduce(np.uint64(0) - block.mask, form.select_bits)


def online_client(
  block: ClientBlock,
  evaluator: garbling.Evaluator,
  labels: np.ndarray,
  form: ActivationFormat,
  count: int,
) -> np.ndarray:
  """The client's share v [outputs, count] of ReLU(max), from the labels of s."""
  found = evaluator.evaluate(
    block.garbled, {'client': block.labels, 'server': labels, 'mask': block.mask_labels}
  )
  bits = wires.decode(found.colours, block.decoding)
  return np.stack(
    [wires.unpack(word)[:count] for word in bits.reshape(outputs(form), form.select_bits, -1)]
  )
