"""The class alone: the index of the largest logit, by garbled comparisons of shares.

The logits are y = c + s: the client has the share c, the server the share s. This takes
the place of the server's message with s, which is then never sent.

             client (evaluator)                       server (garbler)
  offline                                             garbles argmax(c + s), k bits
               <- tables, decoding of the index -----
               <-- labels of its bits of c, by OT ---
  online       <---- labels of its bits of s --------
             evaluates, decodes: the class

OT is oblivious transfer: the client gets the labels of its own bits, and the server does
not learn those bits.

Both parties take the low k bits of their shares as they are. So the class is exactly that
of the logits while -2^(k-1) <= y < 2^(k-1). Calibration chooses k with the same margin
over the logits that it saw as for a ReLU's sign test. A model without that number has the
whole linear ring as k. Of equal logits the first wins.

A checked class takes all bits of the shares, and the circuit also says whether every logit
is in that range. If one is not, no index comes out, only that. An image whose values
leave their formats in an early layer has logits that are nearly uniform in the ring, so that
they leave the range, too; docs/measurements.md has how many of them did.

What the client sees: the labels of s are one of each pair. The labels of c come from the
same transfers as those of ReLUs. Tables and decoding show the index, and nothing of the
logits or of any comparison (`crypto.garbled_circuits.garbled_argmax`).

In the mode `gazelle` c is known online only. There the client has made its choices offline
for uniform bits rho, and holds labels t; the server holds labels q. Z are the circuit's
labels of value 0 for the client's bits, and delta is the difference of the two labels of
a wire. The client sends its bits under rho, and the server's answer corrects the labels
(`gazelle.correlations`):

  online       ---- d = bits of c xor rho ----------->
               <- Z xor d delta xor q, labels of s --
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from safenet_jax.crypto.garbled_circuits import garbled_argmax, garbled_block, garbling
from safenet_jax.fixed_point.model import OUT_OF_RANGE
from safenet_jax.protocol.layers.structure import Comparison
from safenet_jax.transport import frames
from safenet_jax.transport.channel import Channel

_NOTHING = np.empty(0, np.uint8)


class ClientState(NamedTuple):
  """What the evaluator keeps of one image; `garbled` is evaluated once.

  labels: of the client's bits of c, uint64 [k, size, 2]; in the mode `gazelle` t.
  decoding: the values that the result's labels of colour 0 stand for, uint8 [outputs].
  choices: in the mode `gazelle` rho, packed, uint8 [k, size / 8]; else empty.
  """

  garbled: garbling.GarbledBlock
  labels: np.ndarray
  decoding: np.ndarray
  choices: np.ndarray = _NOTHING


class ServerState(NamedTuple):
  """What the garbler keeps of one image; used once.

  encoding: the garbler's labels.
  zeros: in the mode `gazelle` q, uint64 [k, size, 2]; else empty.
  """

  encoding: garbling.Encoding
  zeros: np.ndarray = _NOTHING

  @property
  def nbytes(self) -> int:
    """Bytes that a server keeps for one image."""
    return self.encoding.nbytes + self.zeros.nbytes


def offline_server(
  channel: Channel, garbler: garbled_argmax.Garbler, given: dict[str, np.ndarray]
) -> garbling.Encoding:
  """Garbles the comparison and sends it.

  `given` are input labels of value 0, as for `garbled_argmax.Garbler.garble`.
  """
  with channel.scope(phase='offline', layer='class', primitive='garbling'):
    garbled, encoding = garbler.garble(given)
    channel.send(
      'class tables',
      garbled.seed,
      garbled.check,
      garbled.tables,
      garbled_argmax.decoding(encoding),
    )
  return encoding


def offline_client(channel: Channel, form: Comparison) -> tuple[garbling.GarbledBlock, np.ndarray]:
  """Receives the garbled comparison, and the decoding of its result."""
  with channel.scope(phase='offline', layer='class', primitive='garbling'):
    seed, check, tables, decoding = channel.receive(
      'class tables',
      [
        (bytes, (garbled_block.SEED_BYTES,)),
        (bytes, (garbled_block.CHECK_BYTES,)),
        (np.uint64, garbled_argmax.tables_shape(form.tournament)),
        (np.uint8, (form.tournament.outputs,)),
      ],
    )
  return garbling.GarbledBlock(seed, check, tables), decoding


def online_server(
  channel: Channel, form: Comparison, states: Sequence[ServerState], s: np.ndarray
) -> None:
  """Sends the labels of the bits of s, uint64 [B, count], one state for each image."""
  with channel.scope(phase='online', layer='class', primitive='labels'):
    channel.send('class labels', _own_labels(form, states, s))


def online_client(channel: Channel, form: Comparison, states: Sequence[ClientState]) -> np.ndarray:
  """The classes, int64 [B]; OUT_OF_RANGE where they are checked and a logit is not in range."""
  with channel.scope(phase='online', layer='class', primitive='labels'):
    shape = len(states), *form.labels
    (labels,) = channel.receive('class labels', [(np.uint64, shape)])
  return _evaluate(channel, form, states, [state.labels for state in states], labels)


def correcting_server(
  channel: Channel, form: Comparison, states: Sequence[ServerState], s: np.ndarray
) -> None:
  """As `online_server` in the mode `gazelle`: first takes d, and corrects the client's labels."""
  with channel.scope(phase='online', layer='class', primitive='corrections'):
    shape = len(states), form.tournament.entering, form.size // 8
    (d,) = channel.receive('class choices', [(np.uint8, shape)])
  with channel.scope(phase='online', layer='class', primitive='labels'):
    theirs = [state.encoding.labels('client', bits) ^ state.zeros for state, bits in zip(states, d)]
    channel.send('class labels', np.stack(theirs)[:, :, : form.count], _own_labels(form, states, s))


def correcting_client(
  channel: Channel, form: Comparison, states: Sequence[ClientState], c: np.ndarray
) -> np.ndarray:
  """As `online_client` in the mode `gazelle`, for shares c, uint64 [B, count].

  They were not known offline, so the client's labels are corrected first.
  """
  with channel.scope(phase='online', layer='class', primitive='corrections'):
    bits = np.stack([form.entering(share) for share in c])
    channel.send('class choices', bits ^ np.stack([state.choices for state in states]))
  with channel.scope(phase='online', layer='class', primitive='labels'):
    part = np.uint64, (len(states), *form.labels)
    ours, theirs = channel.receive('class labels', [part, part])
  full = [state.labels[:, : form.count] ^ label for state, label in zip(states, ours)]
  return _evaluate(channel, form, states, full, theirs)


def _own_labels(form: Comparison, states: Sequence[ServerState], s: np.ndarray) -> np.ndarray:
  """Labels of the bits of s, uint64 [B, k, count, 2]."""
  return np.stack(
    [
      state.encoding.labels('server', form.entering(share))[:, : form.count]
      for state, share in zip(states, s, strict=True)
    ]
  )


def _evaluate(channel, form: Comparison, states: Sequence[ClientState], ours, theirs) -> np.ndarray:
  with channel.scope(phase='online', layer='class', primitive='evaluation'):
    evaluator = garbled_argmax.Evaluator(form.tournament)
    found = [
      frames.checked(
        evaluator.evaluate, state.garbled, mine[:, : form.count], labels, state.decoding
      )
      for state, mine, labels in zip(states, ours, theirs, strict=True)
    ]
  return np.array([OUT_OF_RANGE if index is None else index for index in found], np.int64)
