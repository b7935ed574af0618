"""Base oblivious transfers, and the seed trees that are grown from them.

Base OT is Chou and Orlandi's (eprint 2015/267) on the prime-order subgroup of
Ed25519, semi-honest, with random keys as output:

    sender                                 receiver, choice bits c_i
    a, A = a G           --- A --->
                         <-- B_i --        B_i = b_i G + c_i A
    key_i^0 = H(i, A, B_i, a B_i)          key_i^{c_i} = H(i, A, B_i, b_i A)
    key_i^1 = H(i, A, B_i, a (B_i - A))

G is the group's generator, a and b_i are random scalars, and H is SHA-256. The
sender gets two keys for every transfer, and the receiver the one of its choice.

A is a uniform group element. B_i is a uniform group element too, whatever c_i is,
because b_i is uniform. So it says nothing about the choice. To compute the other key,
the receiver would need the Diffie-Hellman value of A and A (CDH, H a random oracle).

Seed trees (GGM trees, as in eprint 2022/192, section 6) are made from `depth` base
OTs each. Every node of a tree is expanded to two children. The base OTs give one side
all 2^depth leaves, and the other side all but one: the leaf whose index is spelled by
its choice bits. For this, a level's nodes are summed in two halves, by the bit of the
index that the level adds. One message holds these sums under the base keys. At every level the
receiver opens one of the two sums, and the other stays under a base key that it does
not have.
"""

import hashlib

from nacl import bindings
import numpy as np

from safenet_jax.crypto.randomness import Randomness

KEY_BYTES = 16
POINT_BYTES = 32

_TREE_DOMAIN = b'safenet_jax seed tree'


def announce(
  randomness: Randomness,
) -> tuple[bytes, bytes]:
  """The sender's secret scalar `a` and its message `A`, 32 bytes each."""
  secret = _scalar(randomness)
  return secret, bindings.crypto_scalarmult_ed25519_base_noclamp(secret)


def choose(
  choices: np.ndarray,
  announcement: bytes,
  randomness: Randomness,
) -> tuple[bytes, np.ndarray]:
  """The receiver's answer to `A`.

  Args:
    choices: uint8 [n] in {0, 1}.
    announcement: the sender's 32 bytes.
    randomness: source of the scalars b_i.

  Returns:
    The message, 32 n bytes, and the chosen keys, uint8 [n, 16].
  """
  _check_points(announcement, 1)
  points, keys = [], []
  for index, choice in enumerate(choices):
    scalar = _scalar(randomness)
    plain = bindings.crypto_scalarmult_ed25519_base_noclamp(scalar)
    shifted = bindings.crypto_core_ed25519_add(plain, announcement)
    # Selected by mask, so that no branch depends on the choice.
    mask = -int(choice) & 0xFF
    point = bytes(p ^ mask & (p ^ s) for p, s in zip(plain, shifted))
    shared = bindings.crypto_scalarmult_ed25519_noclamp(scalar, announcement)
    points.append(point)
    keys.append(_key(index, announcement, point, shared))
  return b''.join(points), _key_array(keys)


def sender_keys(secret: bytes, announcement: bytes, points: bytes, count: int) -> np.ndarray:
  """Both keys of every transfer, uint8 [count, 2, 16].

  Raises ValueError if the message does not hold `count` points of the
  prime-order subgroup: a point of small order would reveal the sender's scalar
  modulo that order.
  """
  _check_points(points, count)
  double = bindings.crypto_scalarmult_ed25519_noclamp(secret, announcement)
  keys = []
  for index in range(count):
    point = points[index * POINT_BYTES : (index + 1) * POINT_BYTES]
    shared = bindings.crypto_scalarmult_ed25519_noclamp(secret, point)
    shifted = bindings.crypto_core_ed25519_sub(shared, double)
    keys.append(_key(index, announcement, point, shared))
    keys.append(_key(index, announcement, point, shifted))
  return _key_array(keys).reshape(count, 2, KEY_BYTES)


def grow_trees(keys: np.ndarray, depth: int) -> tuple[np.ndarray, np.ndarray]:
  """All leaves of every tree, and the message that lets the peer grow them.

  Args:
    keys: uint8 [trees * depth, 2, 16], both keys of every base OT.
    depth: base OTs per tree, the bits of a leaf's index from the lowest.

  Returns:
    leaves: uint8 [trees, 2^depth, 16].
    corrections: uint8 [trees, depth - 1, 2, 16]. Entry [.., c, :] is the sum of
      the level's nodes whose newest index bit is c, under the base key of choice
      1 - c. One of the two is opened by the peer's key, the other is uniform to it.
  """
  keys = keys.reshape(-1, depth, 2, KEY_BYTES)
  # The peer's path to its missing leaf has its choice bit d at this level. The key of
  # choice d must open the node off that path, whose bit is 1 - d.
  nodes = keys[:, 0, ::-1]
  corrections = np.empty((len(keys), depth - 1, 2, KEY_BYTES), np.uint8)
  for level in range(1, depth):
    children = _children(nodes)
    sums = np.bitwise_xor.reduce(children, axis=2)
    corrections[:, level - 1] = sums ^ keys[:, level, ::-1]
    nodes = _level(children)
  return nodes, corrections


def grow_punctured_trees(
  keys: np.ndarray, choices: np.ndarray, depth: int, corrections: np.ndarray
) -> np.ndarray:
  """All leaves but the chosen one of every tree.

  Args:
    keys: uint8 [trees * depth, 16], the chosen keys of the base OTs.
    choices: uint8 [trees * depth] in {0, 1}; bit b of tree i's missing index is
      choices[i * depth + b].
    depth: as in `grow_trees`.
    corrections: the peer's message, uint8 [trees, depth - 1, 2, 16].

  Returns:
    uint8 [trees, 2^depth, 16], zero at the missing leaf.

  Raises:
    ValueError: corrections of another type or shape.
  """
  keys = keys.reshape(-1, depth, KEY_BYTES)
  bits = choices.reshape(-1, depth).astype(np.intp)
  tree = np.arange(len(keys))
  want = (len(keys), depth - 1, 2, KEY_BYTES)
  if corrections.dtype != np.uint8 or corrections.shape != want:
    raise ValueError(f'corrections are {corrections.dtype} {corrections.shape}, want uint8 {want}')
  nodes = np.zeros((len(keys), 2, KEY_BYTES), np.uint8)
  nodes[tree, 1 - bits[:, 0]] = keys[:, 0]
  missing = bits[:, 0]
  for level in range(1, depth):
    children = _children(nodes)
    children[tree, :, missing] = 0
    known = 1 - bits[:, level]
    total = corrections[tree, level - 1, known] ^ keys[:, level]
    siblings = np.bitwise_xor.reduce(children, axis=2)[tree, known]
    children[tree, known, missing] = total ^ siblings
    nodes = _level(children)
    missing = missing + (bits[:, level] << level)
  return nodes


def _children(nodes: np.ndarray) -> np.ndarray:
  """uint8 [trees, n, 16] to both children of each, uint8 [trees, 2, n, 16]."""
  trees, width, _ = nodes.shape
  digests = b''.join(
    hashlib.sha256(_TREE_DOMAIN + node.tobytes()).digest() for node in nodes.reshape(-1, KEY_BYTES)
  )
  pairs = np.frombuffer(digests, np.uint8).reshape(trees, width, 2, KEY_BYTES)
  return pairs.transpose(0, 2, 1, 3).copy()


def _level(children: np.ndarray) -> np.ndarray:
  """The next level in index order: a child's bit is above its parent's."""
  return children.reshape(len(children), -1, KEY_BYTES)


def _scalar(randomness: Randomness) -> bytes:
  return bindings.crypto_core_ed25519_scalar_reduce(randomness.bytes(64))


def _key(index: int, announcement: bytes, point: bytes, shared: bytes) -> bytes:
  transcript = index.to_bytes(4, 'little') + announcement + point + shared
  return hashlib.sha256(transcript).digest()[:KEY_BYTES]


def _key_array(keys: list[bytes]) -> np.ndarray:
  return np.frombuffer(b''.join(keys), np.uint8).reshape(-1, KEY_BYTES)


def _check_points(message: bytes, count: int) -> None:
  if len(message) != count * POINT_BYTES:
    raise ValueError(f'{len(message)} bytes of points, want {count * POINT_BYTES}')
  for start in range(0, len(message), POINT_BYTES):
    point = message[start : start + POINT_BYTES]
    if not bindings.crypto_core_ed25519_is_valid_point(point):
      raise ValueError(f'point {start // POINT_BYTES} is not in the prime-order subgroup')
