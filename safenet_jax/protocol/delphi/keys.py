"""The keys of one session: homomorphic encryption, and correlated OT both ways.

           client                                      server
             ---- public keys, announcement 1 ----------->
             <--- points 1, announcement 2, nonce --------
             ---- corrections 1, points 2 --------------->
             <--- corrections 2 --------------------------

In direction 1 the server sends: delta is its garbler's, and the client chooses
the labels of its bits. In direction 2 the client sends, under a delta of its own:
the server chooses with its colours and its wrap bits. The two are independent and
live as long as the session. What these messages show is argued in
`crypto.oblivious_transfer`; a public key is pseudorandom by ring-LWE.
"""

from collections.abc import Iterator
import itertools
from typing import NamedTuple

import numpy as np

from safenet_jax.crypto.garbled_circuits import garbling
from safenet_jax.crypto.homomorphic import bfv, residues
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
  """Of the trees of one direction."""
  bits = correlated_transfer.GROUP_BITS[extension]
  return (128 // bits, bits - 1, 2, 16)


def parameters(structure: Structure) -> dict[int, bfv.Parameters]:
  """Of every kind of ciphertext in a session, by plaintext modulus: 0 is the linear ring."""
  found = {0: bfv.ring_parameters(structure.bits)}
  for modulus in sorted({modulus for modulus, _ in structure.products()}):
    found[modulus] = bfv.slot_parameters(modulus)
  return found


def contexts(structure: Structure) -> dict[int, bfv.Context]:
  """Of `parameters`; they hold no secret."""
  return {modulus: bfv.Context(found) for modulus, found in parameters(structure).items()}


def message_parts(contexts: dict[int, bfv.Context]) -> list[list[tuple]]:
  """Of the four messages in turn, the client's first."""
  keys = [residues.size(context.key_moduli, 2 * context.degree) for context in contexts.values()]
  corrections = np.uint8, corrections_shape()
  return [
    [(bytes, (size,)) for size in (*keys, _ANNOUNCEMENT)],
    [(bytes, (_POINTS,)), (bytes, (_ANNOUNCEMENT,)), (bytes, (NONCE_BYTES,))],
    [corrections, (bytes, (_POINTS,))],
    [corrections],
  ]


class ClientKeys(NamedTuple):
  """The client's side of a session.

  secrets: by plaintext modulus, 0 for the linear ring.
  labels: chooses labels of the server's garbler.
  words: sends words under `delta`, its own.
  nonce: of the session, in every tag.
  numbers: of its images, in the tags too: each is given once.
  """

  secrets: dict[int, bfv.SecretKey]
  labels: CorrelatedReceiver
  words: CorrelatedSender
  delta: np.ndarray
  nonce: bytes
  numbers: Iterator[int]


class ServerKeys(NamedTuple):
  """The server's side: public keys, and the other end of both transfers."""

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
  """Sets the client's side up; `contexts` are those of `parameters`."""
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
  """Sets the server's side up."""
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
