"""ReLU channels: a garbled sign test, and a select under its output label.

The input is y = c + s: the client has the share c, the server the share s. The result is
b y, where the bit b says whether y >= 0. A garbled circuit decides b from the low k bits
of both shares; the lowest t of them are left out, because the output does not have them.

The server garbles the circuit, so it knows both labels of each wire. The client evaluates
it, and sees one label of each wire. The label has a colour, a bit that the client may
read. L_0 and L_1 are the labels of the output wire with colours 0 and 1. Only the server
knows p, the bit that L_0 stands for. H is a keyed hash of labels.

             client (evaluator)                       server (garbler)
  offline                                             garbles sign(c + s), k - t bits
               <------------- tables ----------------
               <-- labels of its bits of c, by OT ---
             v', u' + v' = p c (one OT, the server chooses p)
  online       <-- labels of its bits of s, word ----
             evaluates: colour e, label L_e           rho = p s + u' - H(L_0)
             v = e c + (1 - 2e) v' + (e ? word - H(L_e) : H(L_e))

OT is oblivious transfer: the client gets the labels of its own bits, and the server does
not learn those bits. u' (server) and v' (client) are shares of p c. e is the colour that
the client ends with, so b = e xor p. The word of the server's message is

    word = (1 - p) s - u' - rho + H(L_1)

With it v (client) and rho (server) are shares of the result: v + rho = b y in the select
ring Z_2^l2, where l2 is the format's `select_bits`.

What the client sees: the labels of s are one of each pair, and uniform. Of L_0 and L_1
it holds L_e alone. Where e = 0, the word is under the one-time pad H(L_1). Where e = 1,
the client opens the word, and v is under rho, which H(L_0) hides.

An instance is one sign test. The instances are the values of a [B, H, W, C] array in
order. They are cut into blocks of at most `hashing.MAX_ROWS`, each with keys of its own.

Other activations are sums of ReLUs, which cost no message more: with a public slope a below
zero and a limit L,

    min(max(y, a y), L) = a y + (1 - a) ReLU(y) - ReLU(y - L)

A slope is an integer over 2^e, and both parties multiply their shares by it. The exact truncation
that follows drops e bits more, so that the select ring has e bits more. A limit takes a second
instance for each value, all of them behind the others, in which the server's share is s - L.

Where the sign test is garbled and there is no slope, a limit takes one circuit instead, with two
outputs: whether y is in [0, L), and whether y >= L. The first selects y, as above. The second
selects the constant L in the same way, with p L in the place of p s and nothing of the client:

    rho_2 = p_2 L - H_2(L_0),   word_2 = (1 - p_2) L - rho_2 + H_2(L_1)

The labels are those of the second output, whose bit p_2 is another uniform one, and H_2 has a key
of its own. So the client sees one more uniform word. v and rho are sums of both selections.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from safenet_jax.crypto import hashing, ring
from safenet_jax.crypto.garbled_circuits import circuits, garbling
from safenet_jax.crypto.randomness import Randomness
from safenet_jax.fixed_point.formats import ActivationFormat
from safenet_jax.protocol.layers import blocks
from safenet_jax.protocol.layers.blocks import Block


def circuit(form: ActivationFormat) -> circuits.Circuit:
  """The sign test of a layer: inputs 'client' and 'server' of k - t bits each, `words` outputs."""
  if words(form) == 2:
    return circuits.clamp_signs(form.sign_bits - form.dropped, form.limit >> form.dropped)
  return circuits.relu_sign(form.sign_bits, form.dropped)


def sign_words(share: np.ndarray, form: ActivationFormat) -> np.ndarray:
  """The k - t bits of each share that enter the circuit, as words uint64."""
  return ring.reduce(share, form.sign_bits) >> np.uint64(form.dropped)


def words(form: ActivationFormat) -> int:
  """Select words of each garbled sign test: the outputs of its circuit."""
  return 2 if form.limit and not form.slope else 1


def tests(form: ActivationFormat) -> int:
  """Garbled sign tests of each value."""
  return 2 if form.limit and form.slope else 1


def tested(share: np.ndarray, form: ActivationFormat, tests: int, *, server: bool) -> np.ndarray:
  """What a party's share of the garbled channels is in each instance, uint64 [n].

  `tests` is how many instances each value has.
  """
  flat = share.reshape(-1)
  if tests == 1:
    return flat
  return np.concatenate([flat, flat - np.uint64(form.limit) if server else flat])


def joined(
  selected: Sequence[np.ndarray],
  shares: Sequence[np.ndarray],
  form: ActivationFormat,
  tests: int,
  images: int = 1,
) -> np.ndarray:
  """A party's share of the activation, uint64 [images, values], in the select ring.

  Args:
    selected: its share of b y in all blocks, image by image.
    shares: its share of y there.
    form: of the layer.
    tests: instances of each value.
    images: how many.
  """
  result = np.concatenate(selected).reshape(images, -1)
  if not form.slope and not form.slope_bits and tests == 1:
    return result
  share = np.concatenate(shares).reshape(images, -1)
  first, *rest = np.split(result, tests, axis=1)
  unit, slope = 1 << form.slope_bits, form.slope
  one, below, rest_of = (np.uint64(n % 2**64) for n in (unit, slope, unit - slope))
  result = below * share[:, : first.shape[1]] + rest_of * first
  for second in rest:
    result = result - one * second
  return ring.reduce(result, form.select_bits)


def cut(instances: int) -> tuple[Block, ...]:
  """The blocks that hold this many sign tests."""
  return blocks.cut(instances, hashing.MAX_ROWS)


def entering(share: np.ndarray, form: ActivationFormat, size: int) -> np.ndarray:
  """The bits of one block's share that enter its circuit.

  Args:
    share: uint64 [n], of the n instances of the block.
    form: of the layer.
    size: instances of the block with its padding.

  Returns:
    uint8 [width, size / 8], packed; width is k - t.
  """
  return blocks.pack(sign_words(share, form)[None], form.sign_bits - form.dropped, size)


class ServerBlock(NamedTuple):
  """What the garbler keeps of one block until it is online; used once.

  encoding: the garbler's labels.
  product_share: u' uint64 [n].
  key: of the hash H that makes the pads of the select words; of both, one after the other.
  """

  encoding: garbling.Encoding
  product_share: np.ndarray
  key: bytes

  @property
  def nbytes(self) -> int:
    """Bytes that a server keeps of the block, but for its key."""
    return self.encoding.nbytes + self.product_share.nbytes


class ClientBlock(NamedTuple):
  """What the evaluator keeps of one block; `garbled` is evaluated once.

  labels: of the client's bits of c, uint64 [width, size, 2].
  share: c uint64 [n].
  product_share: v' uint64 [n].
  key: of the hash H, as the garbler's.
  """

  garbled: garbling.GarbledBlock
  labels: np.ndarray
  share: np.ndarray
  product_share: np.ndarray
  key: bytes


def colour_zero_bits(encoding: garbling.Encoding, output: int = 0) -> np.ndarray:
  """p of every instance and one of its outputs, uint64 in {0, 1}."""
  return np.unpackbits(encoding.decoding[output], bitorder='little').astype(np.uint64)


def online_server(
  block: ServerBlock, share: np.ndarray, delta: np.ndarray, form: ActivationFormat
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """The messages labels [width, size, 2] and words [words, n]; and the server's share rho [n].

  Args:
    block: offline state.
    share: s of the block's instances, uint64 [n].
    delta: the difference of the two labels of every wire, uint64 [2].
    form: of the layer.
  """
  count, bits = share.size, form.select_bits
  size = block.encoding.decoding.shape[-1] * 8
  labels = block.encoding.labels('server', entering(share, form, size))
  known = [(share, block.product_share), (np.full_like(share, form.limit), np.zeros_like(share))]
  found = []
  for i, (value, product_share) in zip(range(words(form)), known):
    zero = np.ascontiguousarray(block.encoding.output_labels[i])
    key = _key(block.key, i)
    hash0 = hashing.hash_labels(zero, key)[:count]
    hash1 = hashing.hash_labels(zero ^ delta, key)[:count]
    p = colour_zero_bits(block.encoding, i)[:count]
    found.append(select_server(p, value, product_share, hash0, hash1, bits))
  sent, rhos = (np.stack(part) for part in zip(*found))
  return labels, sent, ring.reduce(rhos.sum(0, dtype=np.uint64), bits)


def select_server(
  p: np.ndarray,
  share: np.ndarray,
  product_share: np.ndarray,
  hash0: np.ndarray,
  hash1: np.ndarray,
  bits: int,
) -> tuple[np.ndarray, np.ndarray]:
  """The select words and rho, from p, s, u' and the hashes of L_0 and L_1: uint64 [n] each.

  `bits` is the width of the select ring.
  """
  rho = ring.reduce(p * share + product_share - hash0, bits)
  words = ring.reduce((np.uint64(1) - p) * share - product_share - rho + hash1, bits)
  return words, rho


def online_client(
  block: ClientBlock,
  evaluator: garbling.Evaluator,
  labels: np.ndarray,
  sent: np.ndarray,
  form: ActivationFormat,
) -> np.ndarray:
  """The client's share v [n], from the server's labels and words uint64 [words, n]."""
  count = block.share.size
  outputs = evaluator.evaluate(block.garbled, {'client': block.labels, 'server': labels})
  total = np.zeros(count, np.uint64)
  nothing = np.zeros_like(block.share)
  known = [(block.share, block.product_share), (nothing, nothing)]
  for i, (word, (share, product_share)) in enumerate(zip(sent, known)):
    colour = np.unpackbits(outputs.colours[i], bitorder='little')[:count].astype(np.uint64)
    label = np.ascontiguousarray(outputs.labels[i])
    pad = hashing.hash_labels(label, _key(block.key, i))[:count]
    total += select_client(colour, share, product_share, pad, word, form.select_bits)
  return ring.reduce(total, form.select_bits)


def select_client(
  colour: np.ndarray,
  share: np.ndarray,
  product_share: np.ndarray,
  pad: np.ndarray,
  words: np.ndarray,
  bits: int,
) -> np.ndarray:
  """v from e, c, v', the hash of L_e and the select words: uint64 [n] each."""
  selected = np.where(colour == 1, words - pad, pad)
  sign = np.uint64(1) - np.uint64(2) * colour
  return ring.reduce(colour * share + sign * product_share + selected, bits)


def word_key(randomness: Randomness, form: ActivationFormat) -> bytes:
  """Fresh public keys for one block's select words, one after the other."""
  return randomness.bytes(hashing.KEY_BYTES * words(form))


def _key(keys: bytes, index: int) -> bytes:
  return keys[hashing.KEY_BYTES * index :][: hashing.KEY_BYTES]
