"""ReLU channels without garbling: a comparison by oblivious transfer, and a select.

The input is y = c + s: the client has the share c and knows it offline, the server gets its
share s online. The result is b y, where the bit b says whether y >= 0. As in `relu`, b is
decided on words of w = k - t bits: the low k bits of each share, without the lowest t. The
words' top bits are h_c and h_s, their other bits C and S'. The carry of C + S' decides:

    b = 1 xor h_c xor h_s xor lt,   lt = (S < C),   S = 2^(w-1) - 1 - S'

This is the millionaires' protocol of CrypTFlow2 (eprint 2020/1002, section 3.1) and Cheetah
(eprint 2022/207, section 4). C and S are cut into digits. For the digits i, the parties get
shares of the bits lt_i = (S_i < C_i) and eq_i = (S_i = C_i) from a table that the server
sends, of which the client can open the entry C_i (`crypto.oblivious_transfer.table_transfer`).
With i above j, two digits are put together by

    lt_ij = lt_i xor eq_i lt_j,   eq_ij = eq_i eq_j

Each AND takes a triple (`crypto.oblivious_transfer.and_triples`). There are at most four
digits, and so two levels of ANDs: of the digits in each half, then of both halves. In all
transfers the client chooses: with the bits of C, and with bits that it draws for triples.

             client                                   server
  offline      ---- choices: C; x and y of triples; a ---->
               <--- seed of the hash keys -----------------
             u' + v' = p c (one transfer, the server chooses p)
  online       <--- tables; parts of d, e of level 1 ------
               ---- parts of d, e of both levels; f ------>
               <--- part of d, e of level 2; g; word ------
             v as in `relu`                           rho as in `relu`

Now to level 2, with i and j for the upper and the lower half. x, y and z = x y are the bits of
its triple, and an index c or s marks a party's share. Both parties know d = eq_i xor x and
e = lt_j xor y, once each has told its parts of them. Then b = b_c xor b_s for

    b_c = h_c xor lt_i_c xor z_c xor d y_c xor e x_c
    b_s = 1 xor h_s xor lt_i_s xor z_s xor d y_s xor e x_s xor d e

The select of `relu` wants b = E xor p, where p is a bit that the server drew offline, and E is
a bit of the client with a label. So the server sends g, and E is b_c xor g:

    g = b_s xor p

The label of E comes from those of transfers. For a choice r the client has t = q xor r delta,
the server has q and delta. XORs of labels are labels of XORs. The client has labels of x_c
and y_c, and of a random bit a, with which it tells the server the rest of b_c:

    f = h_c xor lt_i_c xor z_c xor a,   so that   b_c = f xor a xor d y_c xor e x_c

    client      L_E = t_a xor d t_y xor e t_x
    server      L_0 = q_a xor d q_y xor e q_x xor (f xor g) delta,   L_1 = L_0 xor delta

With E as the colour and L_0 and L_1 as the output labels, the rest is as in `relu`: p, u', v',
the select word, v and rho. Labels of x and y are hashed for their triple too: each hash of a
block has a key of its own. With one digit or none there is no level 2, and E has the label of
a alone.

What the client sees:
 - Of a table, the entries that it did not choose are under hashes that it does not have. The
   chosen one is its share, and uniform because the server's share is.
 - The server's parts of d and e are under x_s and y_s. Each of these holds a hash that the
   client does not have.
 - g is under p, of which the client knows nothing but its share v' of p c.
 - The word is as in `relu`.

What the server sees: the client's parts of d and e are under x_c and y_c, and f is under a.
These are choices of transfers, of which it learns nothing, and serve once.
"""

from collections.abc import Iterable, Iterator, Sequence
import functools
import itertools
from typing import NamedTuple

import numpy as np

from safenet_jax.crypto import hashing
from safenet_jax.crypto.garbled_circuits import wires
from safenet_jax.crypto.oblivious_transfer import and_triples
from safenet_jax.crypto.oblivious_transfer.and_triples import Triple
from safenet_jax.crypto.oblivious_transfer.table_transfer import Shape
from safenet_jax.fixed_point.formats import ActivationFormat
from safenet_jax.protocol.layers import relu
from safenet_jax.protocol.layers.sign_test import sign_test, SignTest

SEED_BYTES = 16


class ClientBlock(NamedTuple):
  """What the client keeps of one block of n sign tests, used once; `size` is n with padding.

  pads: N[C] of the tables, packed, uint8 [leaves, size / 8].
  triples: x, y, z of each triple, packed, uint8 [triples, 3, size / 8].
  mask: a, packed, uint8 [size / 8].
  labels: of a; and of x and y of level 2, if there is one: uint64 [1 or 3, size, 2].
  key: of the hash that makes the pads of the select words.
  share: c, uint64 [n].
  product_share: v', uint64 [n].
  """

  pads: np.ndarray
  triples: np.ndarray
  mask: np.ndarray
  labels: np.ndarray
  key: bytes
  share: np.ndarray
  product_share: np.ndarray


class ServerBlock(NamedTuple):
  """What the server keeps of one block of n sign tests, used once; `size` is n with padding.

  masks: of what is sent of each table, uint64 [digits, size].
  firsts: M[0] of the tables, packed, uint8 [leaves, size / 8].
  triples: as in `ClientBlock`.
  labels: q of a; and of x and y of level 2: uint64 [1 or 3, size, 2].
  key: as in `ClientBlock`.
  signs: p, packed, uint8 [size / 8].
  product_share: u', uint64 [n].
  """

  masks: np.ndarray
  firsts: np.ndarray
  triples: np.ndarray
  labels: np.ndarray
  key: bytes
  signs: np.ndarray
  product_share: np.ndarray

  @property
  def nbytes(self) -> int:
    """Bytes that a server keeps of the block, but for its key."""
    return sum(part.nbytes for part in self if isinstance(part, np.ndarray))


# What a block gets later: c, and the shares of p c.
_LATER = np.empty(0, np.uint64)


def offline_client(
  test: SignTest, labels: np.ndarray, choices: np.ndarray, seed: bytes
) -> ClientBlock:
  """The client's state of a block, as yet without c and v'.

  Args:
    test: of the layer.
    labels: t of all transfers, uint64 [transfers, size, 2].
    choices: with which the client chose, packed, uint8 [transfers, size / 8].
    seed: of the hash keys, from the server.
  """
  keys, bits = hashing.expand_keys(seed), test.width - 1
  numbers = test.numbers(wires.unpack(choices[:bits])) if bits else []
  pads = [
    pad
    for (shape, rows), number in zip(test.rows(), numbers, strict=True)
    for pad in shape.pads(labels[rows], _take(keys, shape.bits), number)
  ]
  triples = [
    and_triples.of_receiver(labels[rows], choices[rows], _take(keys, 2)) for rows in _pairs(test)
  ]
  return ClientBlock(
    _packed(pads, choices),
    _stacked(triples, choices),
    choices[-1],
    _kept(test, labels),
    next(keys),
    _LATER,
    _LATER,
  )


def offline_server(
  test: SignTest, labels: np.ndarray, delta: np.ndarray, seed: bytes, signs: np.ndarray
) -> ServerBlock:
  """The server's state of a block, as yet without u'.

  Args:
    test: of the layer.
    labels: q of all transfers, uint64 [transfers, size, 2].
    delta: the server's, uint64 [2].
    seed: fresh and uniform; the client is told.
    signs: p, uniform, packed, uint8 [size / 8].
  """
  keys, firsts, masks = hashing.expand_keys(seed), [], []
  for shape, rows in test.rows():
    first, rest = shape.masks(labels[rows], delta, _take(keys, shape.bits))
    firsts += first
    masks.append(rest)
  triples = [and_triples.of_sender(labels[rows], delta, _take(keys, 2)) for rows in _pairs(test)]
  return ServerBlock(
    np.array(masks, np.uint64).reshape(len(masks), 8 * signs.size),
    _packed(firsts, signs),
    _stacked(triples, signs),
    _kept(test, labels),
    next(keys),
    signs,
    _LATER,
  )


class ClientStep(NamedTuple):
  """What the client has between its messages: b_c but for d and e; and its parts of these."""

  rest: np.ndarray
  opened: list[np.ndarray]


class ServerStep(NamedTuple):
  """What the server has between its messages: h_s, leaves, and its parts of level 1."""

  sign: np.ndarray
  leaves: list[np.ndarray]
  opened: list[np.ndarray]


def first_of_server(
  block: ServerBlock, share: np.ndarray, form: ActivationFormat
) -> tuple[list[np.ndarray], np.ndarray, ServerStep]:
  """The server's first message for its shares s, uint64 [n].

  Returns:
    The words of each digit's tables, uint64 [n] each; bits uint8 [`opened[0]`, size / 8].
  """
  test, size = sign_test(form), 8 * block.signs.size
  words = _words(share, form, size)
  sent, leaves, firsts = [], [], iter(block.firsts)
  for shape, number, mask in zip(test.digits, test.numbers(~words), block.masks, strict=True):
    zeros, rest = _tables(shape)
    sent.append((rest[number] ^ mask)[: share.size])
    leaves += [_pack(zero[number]) ^ next(firsts) for zero in zeros]
  opened = _opened(test.first_level(leaves), _triples(block))
  return sent, _rows(opened, size), ServerStep(_top(words, test), leaves, opened)


def answer_of_client(
  block: ClientBlock, sent: Sequence[np.ndarray], opened: np.ndarray, form: ActivationFormat
) -> tuple[np.ndarray, ClientStep]:
  """The client's message, bits uint8 [`opened[1]`, size / 8], from the server's first."""
  test, size = sign_test(form), 8 * block.mask.size
  words = _words(block.share, form, size)
  leaves, pads = [], iter(block.pads)
  for shape, number, table in zip(test.digits, test.numbers(words), sent, strict=True):
    padded = np.zeros(size, np.uint64)
    padded[: table.size] = table
    leaves += [_pack(bit) ^ next(pads) for bit in shape.chosen(padded, number)]
  level, triples = test.first_level(leaves), _triples(block)
  ours = _opened(level, triples)
  ands = [t.share(d, e) for t, (d, e) in zip(triples, _joined(ours, opened))]
  top, *last = test.halves(leaves, ands)
  rest, late = _top(words, test) ^ top, []
  if last:
    late = triples[-1].opened(*last)
    rest = rest ^ triples[-1].product
  return _rows([*ours, *late, rest ^ block.mask], size), ClientStep(rest, late)


def last_of_server(
  block: ServerBlock,
  step: ServerStep,
  received: np.ndarray,
  share: np.ndarray,
  delta: np.ndarray,
  form: ActivationFormat,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """The server's last message, and its share.

  Args:
    block, step: its state.
    received: the client's message.
    share: s, uint64 [n].
    delta: of the labels, uint64 [2].
    form: of the layer.

  Returns:
    Bits uint8 [`opened[2]`, size / 8]; the select words uint64 [n]; rho uint64 [n].
  """
  test, triples = sign_test(form), _triples(block)
  *theirs, f = received
  ands = [t.share(d, e) ^ d & e for t, (d, e) in zip(triples, _joined(step.opened, theirs))]
  top, *last = test.halves(step.leaves, ands)
  mine, late, known = ~(step.sign ^ top), [], []
  if last:
    late = triples[-1].opened(*last)
    ((d, e),) = _joined(late, theirs[len(step.opened) :])
    mine, known = mine ^ triples[-1].share(d, e) ^ d & e, [d, e]
  g = mine ^ block.signs
  zero = _label(block.labels, known)
  zero ^= _spread(f ^ g)[:, None] & delta
  hash0, hash1 = (
    hashing.hash_labels(labels, block.key)[: share.size] for labels in (zero, zero ^ delta)
  )
  p = np.unpackbits(block.signs, bitorder='little')[: share.size].astype(np.uint64)
  words, rho = relu.select_server(p, share, block.product_share, hash0, hash1, form.select_bits)
  return _rows([*late, g], 8 * g.size), words, rho


def finish_client(
  block: ClientBlock,
  step: ClientStep,
  received: np.ndarray,
  words: np.ndarray,
  form: ActivationFormat,
) -> np.ndarray:
  """The client's share v, uint64 [n], from the server's last message."""
  *theirs, g = received
  known = [pair for pairs in _joined(step.opened, theirs) for pair in pairs]
  colour = step.rest ^ g
  for bit, share in zip(known, block.triples[-1:, 1::-1].reshape(-1, g.size)):
    colour = colour ^ bit & share
  count = words.size
  pad = hashing.hash_labels(_label(block.labels, known), block.key)[:count]
  bits = np.unpackbits(colour, bitorder='little')[:count].astype(np.uint64)
  return relu.select_client(bits, block.share, block.product_share, pad, words, form.select_bits)


@functools.cache
def _tables(shape: Shape) -> tuple[list[np.ndarray], np.ndarray]:
  """For every S what the table of lt and eq stands for, as `Shape.split` gives it."""
  entries = range(1 << shape.bits)
  words = [
    sum((s < y) << y for y in entries) + ((1 << s << len(entries)) if shape.parts == 2 else 0)
    for s in entries
  ]
  return shape.split(np.array(words, np.uint64))


def _take(keys: Iterator[bytes], count: int) -> list[bytes]:
  return list(itertools.islice(keys, count))


def _pairs(test: SignTest) -> list[slice]:
  """The rows of each triple's transfers."""
  start = test.width - 1
  return [slice(row, row + 2) for row in range(start, test.transfers - 1, 2)]


def _kept(test: SignTest, labels: np.ndarray) -> np.ndarray:
  """The labels of a, and of x and y of level 2."""
  return labels[[-1, -3, -2] if test.last_triples else [-1]]


def _pack(bits: np.ndarray) -> np.ndarray:
  """Words in {0, 1} as packed bits."""
  return np.packbits(bits.astype(np.uint8), bitorder='little')


def _packed(bits: Sequence[np.ndarray], like: np.ndarray) -> np.ndarray:
  return _rows([_pack(row) for row in bits], 8 * like.shape[-1])


def _rows(rows: Sequence[np.ndarray], size: int) -> np.ndarray:
  """Packed bits of so many instances as one array, which may have no rows."""
  return np.array(rows, np.uint8).reshape(len(rows), size // 8)


def _stacked(triples: Sequence[Triple], like: np.ndarray) -> np.ndarray:
  return np.array(triples, np.uint8).reshape(len(triples), 3, like.shape[-1])


def _triples(block: ClientBlock | ServerBlock) -> list[Triple]:
  return [Triple(*parts) for parts in block.triples]


def _opened(pairs, triples: Sequence[Triple]) -> list[np.ndarray]:
  return [part for pair, triple in zip(pairs, triples) for part in triple.opened(*pair)]


def _joined(ours: Sequence[np.ndarray], theirs: Iterable[np.ndarray]) -> list[tuple]:
  """The pairs d, e from both parties' parts."""
  both = [a ^ b for a, b in zip(ours, theirs)]
  return list(zip(both[::2], both[1::2]))


def _words(share: np.ndarray, form: ActivationFormat, size: int) -> np.ndarray:
  words = np.zeros(size, np.uint64)
  words[: share.size] = relu.sign_words(share, form)
  return words


def _top(words: np.ndarray, test: SignTest) -> np.ndarray:
  """The top bits of words, packed."""
  return _pack(words >> np.uint64(test.width - 1))


def _spread(bits: np.ndarray) -> np.ndarray:
  """Packed bits as words of all ones or zero."""
  return np.uint64(0) - np.unpackbits(bits, bitorder='little').astype(np.uint64)


def _label(labels: np.ndarray, known: Sequence[np.ndarray]) -> np.ndarray:
  """The sum of a's label, e times x's and d times y's; `known` are d and e, or nothing."""
  total = labels[0].copy()
  for row, bits in zip(labels[1:], reversed(known)):
    total ^= _spread(bits)[:, None] & row
  return total
