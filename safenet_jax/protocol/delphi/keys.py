"""The keys of one session: homomorphic encryption, and correlated OT both ways.

           client                                      server
             ---- public keys, announcement 1 ----------->
             <--- points 1, announcement 2, nonce --------
             ---- corrections 1, points 2 --------------->
             <--- corrections 2 --------------------------

The public keys are those under which the client encrypts. The client sends the first half
of each. The second is expanded from the model id, which the server drew before it heard of
the client: `crypto.homomorphic.replies` says why the client must not choose it.
Announcements, points and corrections belong to the base transfers of correlated oblivious
transfer (OT), in the directions 1 and 2. The nonce is random bytes that name the session.

In correlated OT, the sender has two labels for each transfer. Their difference is a secret
of the sender, delta. The receiver gets the one label that it chooses. In direction 1 the
server is the sender: delta is that of its garbled circuits, and the client chooses the
labels of its bits. In direction 2 the client is the sender, with a delta of its own. The
server chooses with the bits that colour 0 of its sign tests stands for (`layers.relu`), and
with random bits for truncations (`layers.truncation`). The two directions are independent,
and live as long as the session.

`crypto.oblivious_transfer` argues what these messages show; a public key is pseudorandom
by ring-LWE.
"""

from collections.abc import Iterator
import itertools
from typing import NamedTuple

import numpy as np

from safenet_jax.crypto.garbled_circuits import garbling
from safenet_jax.crypto.homomorphic import bfv
from safenet_jax.crypto.oblivious_transfer import correlated_transfer
from safenet_jax.crypto.oblivious_transfer.correlated_transfer import (
  CorrelatedReceiver,
  CorrelatedSender,
)
from safenet_jax.crypto.randomness import Randomness
from safenet_jax.protocol.layers.structure import Structure
from safenet_jax.transport import frames
from safenet_jax.transport.channel import Channel

NONCE_BYTES = 16
_ANNOUNCEMENT = 32
_POINTS = 4096
_EXTENSION = 'softspoken'


def corrections_shape(extension: str = _EXTENSION) -> tuple[int, ...]:
  """The shape of the corrections of one direction, uint8, as `base_transfer` makes them."""
  bits = correlated_transfer.GROUP_BITS[extension]
  return (128 // bits, bits - 1, 2, 16)


def parameters(structure: Structure, seed: bytes) -> dict[int, bfv.Parameters]:
  """Parameters of every kind of ciphertext in a session, by plaintext modulus.

  Powers of two are those of the rings of linear layers; the others are the primes of
  polynomials. The seed is the model id of the server's description.
  """
  widths = sorted(set(structure.rings.linear.values()))
  found = {1 << bits: bfv.ring_parameters(bits, seed) for bits in widths}
  for modulus in sorted({modulus for modulus, _ in structure.products()}):
    found[modulus] = bfv.slot_parameters(modulus, seed)
  return found


def contexts(structure: Structure, seed: bytes) -> dict[int, bfv.Context]:
  """The contexts of `parameters`, by the same moduli; they hold no secret."""
  return {modulus: bfv.Context(found) for modulus, found in parameters(structure, seed).items()}


def message_parts(contexts: dict[int, bfv.Context]) -> list[list[tuple]]:
  """The parts of each of the four messages, in their order."""
  keys = [context.public_key_size() for context in contexts.values()]
  corrections = np.uint8, corrections_shape()
  return [
    [(bytes, (size,)) for size in (*keys, _ANNOUNCEMENT)],
    [(bytes, (_POINTS,)), (bytes, (_ANNOUNCEMENT,)), (bytes, (NONCE_BYTES,))],
    [corrections, (bytes, (_POINTS,))],
    [corrections],
  ]


class ClientKeys(NamedTuple):
  """The client's side of a session.

  secrets: secret keys of encryption, by plaintext modulus (`parameters`).
  labels: the receiver of direction 1, for labels of the server's circuits.
  words: the sender of direction 2.
  delta: the client's own, of direction 2, uint64 [2].
  nonce: of the session; a part of every tag.
  numbers: of the session's images, a part of the offline phase's tags; each is given once.
  """

  secrets: dict[int, bfv.SecretKey]
  labels: CorrelatedReceiver
  words: CorrelatedSender
  delta: np.ndarray
  nonce: bytes
  numbers: Iterator[int]


class ServerKeys(NamedTuple):
  """The server's side of a session.

  publics: the client's public keys, by plaintext modulus (`parameters`).
  raw: the same keys as the bytes that the client sent.
  labels: the sender of direction 1.
  words: the receiver of direction 2.
  delta: the server's own, of direction 1 and of its garbled circuits, uint64 [2].
  nonce, numbers: as in `ClientKeys`.
  """

  publics: dict[int, bfv.PublicKey]
  raw: dict[int, bytes]
  labels: CorrelatedSender
  words: CorrelatedReceiver
  delta: np.ndarray
  nonce: bytes
  numbers: Iterator[int]


def client(
  channel: Channel, contexts: dict[int, bfv.Context], randomness: Randomness
) -> ClientKeys:
  """Exchanges the messages above as the client; `contexts` are those of the session."""
  with channel.scope(phase='setup', layer='session', primitive='keys'):
    secrets = {modulus: bfv.SecretKey(context) for modulus, context in contexts.items()}
    delta = garbling.fresh_delta(randomness)
    labels = CorrelatedReceiver(randomness, extension=_EXTENSION)
    words = CorrelatedSender(delta, extension=_EXTENSION)
    channel.send('keys', *(key.public_key() for key in secrets.values()), labels.announcement)
    _, wanted, _, last = message_parts(contexts)
    points, announcement, nonce = channel.receive('points', wanted)
    corrections = frames.checked(labels.correct, points)
    ours = frames.checked(words.choose, announcement, randomness)
    channel.send('corrections', corrections, ours)
    (theirs,) = channel.receive('corrections', last)
    frames.checked(words.finish, theirs)
  return ClientKeys(secrets, labels, words, delta, nonce, itertools.count())


def server(
  channel: Channel, contexts: dict[int, bfv.Context], randomness: Randomness
) -> ServerKeys:
  """Exchanges the messages above as the server; `contexts` are those of the session."""
  with channel.scope(phase='setup', layer='session', primitive='keys'):
    delta = garbling.fresh_delta(randomness)
    labels = CorrelatedSender(delta, extension=_EXTENSION)
    words = CorrelatedReceiver(randomness, extension=_EXTENSION)
    nonce = randomness.bytes(NONCE_BYTES)
    first, _, third, _ = message_parts(contexts)
    *keys, announcement = channel.receive('keys', first)
    raw = dict(zip(contexts, keys))
    publics = {
      modulus: frames.checked(bfv.PublicKey, contexts[modulus], key) for modulus, key in raw.items()
    }
    points = frames.checked(labels.choose, announcement, randomness)
    channel.send('points', points, words.announcement, nonce)
    corrections, theirs = channel.receive('corrections', third)
    frames.checked(labels.finish, corrections)
    channel.send('corrections', frames.checked(words.correct, theirs))
  return ServerKeys(publics, raw, labels, words, delta, nonce, itertools.count())
