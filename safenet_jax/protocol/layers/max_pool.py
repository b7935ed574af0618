"""Max pools behind garbled channels: one circuit takes ReLU(max) of a window.

The inputs are y = c + s, of which the client has the shares c and the server the shares
s. The circuit adds both shares, takes the largest of the n x n values of a window, applies
ReLU, and adds a mask M that the server draws. It computes on words of w = k - t bits:
the low k bits of a share, without the lowest t.

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

import functools
from typing import NamedTuple

import numpy as np

from safenet_jax.crypto import hashing, ring
from safenet_jax.crypto.garbled_circuits import circuits, garbling, wires
from safenet_jax.crypto.randomness import Randomness
from safenet_jax.fixed_point.formats import ActivationFormat
from safenet_jax.protocol.layers import blocks
from safenet_jax.protocol.layers.blocks import Block

# Windows in a block: their circuits are an order of magnitude larger than sign tests.
MAX_BLOCK = hashing.MAX_ROWS // 4


def circuit(form: ActivationFormat) -> circuits.Circuit:
  """ReLU(max) + mask of a window of n^2 values of w = k - t bits.

  The inputs 'client' and 'server' hold the window's words one after another. 'mask' and
  the output have w + 1 bits.

  The sums take n^2 (w - 1) ANDs, each of the n^2 - 1 maxima 2 w, the ReLU w - 1, and the
  mask w. For n = 2 these are 12 w - 5.
  """
  return _circuit(form.window**2, form.sign_bits - form.dropped, form.select_bits)


@functools.lru_cache(maxsize=64)
def _circuit(words: int, width: int, select_bits: int) -> circuits.Circuit:
  builder = circuits.Builder()
  client = builder.input('client', words * width)
  server = builder.input('server', words * width)
  mask = builder.input('mask', select_bits)
  values = [
    circuits.add(builder, client[first : first + width], server[first : first + width])
    for first in range(0, len(client), width)
  ]
  while len(values) > 1:
    pairs = zip(values[::2], values[1::2])
    rest = values[len(values) // 2 * 2 :]
    values = [circuits.maximum(builder, *pair) for pair in pairs] + rest
  *bits, sign = values[0]
  rectified = [builder.and_(bit, builder.not_(sign)) for bit in bits]
  rectified += circuits.constant(0, select_bits - len(bits))
  return builder.build(circuits.add(builder, mask, rectified))


def cut(instances: int) -> tuple[Block, ...]:
  """The blocks that hold this many windows."""
  return blocks.cut(instances, MAX_BLOCK)


def windows(share: np.ndarray, form: ActivationFormat, *, server: bool) -> np.ndarray:
  """The words of a share [B, H, W, C] that enter the circuits: [n^2, windows in order].

  `server` says whose share it is: the server's words get the one for both roundings.
  """
  b, h, w, c = share.shape
  n, width = form.window, form.sign_bits - form.dropped
  words = ring.reduce(share, form.sign_bits) >> np.uint64(form.dropped)
  if server and form.dropped:
    words = ring.reduce(words + np.uint64(1), width)
  parts = words.reshape(b, h // n, n, w // n, n, c).transpose(2, 4, 0, 1, 3, 5)
  return parts.reshape(n * n, -1)


class ServerBlock(NamedTuple):
  """What the garbler keeps of one block until it is online; used once.

  encoding: the garbler's labels.
  mask: M, uint64 [count] of so many windows.
  size: windows of the block with its padding.
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

  labels: of the client's bits of c, uint64 [n^2 w, size, 2].
  mask_labels: of the bits of M, uint64 [w + 1, size, 2].
  decoding: the values that the output labels of colour 0 stand for, packed:
    uint8 [w + 1, size / 8].
  """

  garbled: garbling.GarbledBlock
  labels: np.ndarray
  mask_labels: np.ndarray
  decoding: np.ndarray


def offline_server(
  encoding: garbling.Encoding, randomness: Randomness, form: ActivationFormat, count: int
) -> tuple[ServerBlock, np.ndarray, np.ndarray]:
  """The server's state of a garbled block of `count` windows, and two messages.

  The messages are the labels of M, uint64 [w + 1, size, 2], and the decoding bits,
  uint8 [w + 1, size / 8]. The text at the top of this module says why they tell nothing.
  """
  size = encoding.decoding.shape[-1] * 8
  mask = randomness.ring(form.select_bits, count)
  labels = encoding.labels('mask', blocks.pack(mask[None], form.select_bits, size))
  return ServerBlock(encoding, mask, size), labels, encoding.decoding


def online_server(
  block: ServerBlock, words: np.ndarray, form: ActivationFormat
) -> tuple[np.ndarray, np.ndarray]:
  """The message and the server's share rho.

  The message has the labels of the bits of s, [n^2 w, size, 2]: one of each pair.

  Args:
    block: offline state.
    words: `windows` of s, uint64 [n^2, count].
    form: of the layer.
  """
  bits = blocks.pack(words, form.sign_bits - form.dropped, block.size)
  labels = block.encoding.labels('server', bits)
  return labels, ring.reduce(np.uint64(0) - block.mask, form.select_bits)


def online_client(
  block: ClientBlock, evaluator: garbling.Evaluator, labels: np.ndarray, count: int
) -> np.ndarray:
  """The client's share v [count] of ReLU(max), from the labels of s."""
  outputs = evaluator.evaluate(
    block.garbled, {'client': block.labels, 'server': labels, 'mask': block.mask_labels}
  )
  return wires.unpack(wires.decode(outputs.colours, block.decoding))[:count]
