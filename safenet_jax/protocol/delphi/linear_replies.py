"""Who answers Enc(r) of a linear layer with Enc(W r - u): the session itself, or processes.

Enc is encryption under the client's key. r is the client's mask of the layer's input, W are
the weights, and u is the server's mask of the layer's output. The mode `gazelle` asks in the
same way online, with the client's share of the input in the place of r.
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from safenet_jax.crypto.homomorphic import bfv, encrypted_convolution, workers
from safenet_jax.crypto.randomness import Randomness
from safenet_jax.fixed_point.model import LinearWeights
from safenet_jax.protocol.delphi.keys import ServerKeys
from safenet_jax.protocol.layers.structure import Structure


class LinearReplies(Protocol):
  """Answers what clients encrypt for linear layers, in this process or in others."""

  def reply(
    self, keys: ServerKeys, name: str, upload: bytes, tag: bytes, *, drawn: bool
  ) -> tuple[bytes, np.ndarray]:
    """The message to the client, and u, uint64 [h, w, channels_out].

    Args:
      keys: of the session.
      name: of the layer.
      upload: what the client sent, Enc(r).
      tag: names this use of the keys.
      drawn: whether the client drew r as it encrypted it.

    Raises:
      ValueError: the upload is malformed.
    """

  def close(self) -> None:
    """Ends the processes that were started, if there are any."""


class InSession:
  """Answers in the thread that asks."""

  def __init__(
    self,
    weights: dict[str, LinearWeights],
    structure: Structure,
    contexts: Mapping[int, bfv.Context],
    randomness: Randomness,
    weights_bytes: int | None = None,
  ):
    """Prepares the weights.

    Args:
      weights: of each linear layer, by name.
      structure: of the model.
      contexts: those of `keys.contexts`.
      randomness: draws masks.
      weights_bytes: the most that weights ready to multiply take; those of further layers are
        made ready for each reply. None is no limit.
    """
    self._structure, self._randomness = structure, randomness
    kernels = _kernels(weights, structure)
    layers = {
      name: (contexts[structure.plain_modulus(name)], structure.linear[name]) for name in kernels
    }
    sizes = [encrypted_convolution.prepared_size(*layer) for layer in layers.values()]
    self._weights: dict[str, encrypted_convolution.Weights | encrypted_convolution.Unprepared] = {}
    for (name, kernel), keep in zip(kernels.items(), workers.kept(sizes, weights_bytes)):
      make = encrypted_convolution.prepare if keep else encrypted_convolution.unprepared
      self._weights[name] = make(*layers[name], kernel)

  def reply(
    self, keys: ServerKeys, name: str, upload: bytes, tag: bytes, *, drawn: bool
  ) -> tuple[bytes, np.ndarray]:
    """As `LinearReplies.reply`."""
    public = keys.publics[self._structure.plain_modulus(name)]
    return encrypted_convolution.reply(
      public, self._weights[name], upload, self._randomness, tag, drawn=drawn
    )

  def close(self) -> None:
    """There is nothing to end."""


class InProcesses:
  """Answers in worker processes, which work together on one layer of one session at a time."""

  def __init__(
    self,
    count: int,
    weights: dict[str, LinearWeights],
    structure: Structure,
    contexts: Mapping[int, bfv.Context],
    weights_bytes: int | None = None,
  ):
    """Starts `count` processes; other arguments as for `InSession`, for all of them together."""
    kernels = _kernels(weights, structure)
    self._structure = structure
    self._index = {name: i for i, name in enumerate(kernels)}
    self._workers = workers.Workers(
      count,
      [
        (contexts[structure.plain_modulus(name)].parameters, structure.linear[name], kernel)
        for name, kernel in kernels.items()
      ],
      weights_bytes,
    )

  def reply(
    self, keys: ServerKeys, name: str, upload: bytes, tag: bytes, *, drawn: bool
  ) -> tuple[bytes, np.ndarray]:
    """As `LinearReplies.reply`."""
    key = keys.raw[self._structure.plain_modulus(name)]
    return self._workers.reply(key, self._index[name], upload, tag, drawn=drawn)

  def close(self) -> None:
    """Ends the processes."""
    self._workers.close()


def _kernels(weights: dict[str, LinearWeights], structure: Structure) -> dict[str, np.ndarray]:
  return {
    name: weights[name].kernel.reshape(layer.kernel_shape)
    for name, layer in structure.linear.items()
  }
