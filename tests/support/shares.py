"""What a simulation's two parties hold, layer by layer: the simulator keeps none of it.

Only a test may put the two shares of a value together.
"""

import contextlib
from typing import NamedTuple

import numpy as np
import pytest

from safenet_jax.crypto import ring
from safenet_jax.fixed_point import rings
from safenet_jax.protocol.simulation import simulator


def reconstruct(model, name, client, server):
  """int64, what two shares of a layer stand for, or of a sum."""
  found = rings.of(model.public)
  widths = found.linear | found.values
  # A sum is one in the narrowest ring, whatever is added.
  bits = widths.get(name, min(widths.values()))
  return ring.reconstruct(ring.reduce(client, bits), ring.reduce(server, bits), bits)


class Shares(NamedTuple):
  """The client's and the server's shares by name, uint64 [B, ...].

  Of the outputs of linear and activation layers, and of additions: add0, add1, ...
  """

  client: dict[str, np.ndarray]
  server: dict[str, np.ndarray]

  def values(self, model) -> dict[str, np.ndarray]:
    """int64, the values that the shares stand for."""
    assert self.client.keys() == self.server.keys()
    return {
      name: reconstruct(model, name, share, self.server[name])
      for name, share in self.client.items()
    }


def _recorder(operations, found):
  """The simulator's operations on one party's shares, and a record of what they return."""
  additions = 0

  class Recorder(operations):
    def conv(self, name, layer, x):
      return self._kept(name, super().conv(name, layer, x))

    dense = conv

    def truncate(self, name, layer, x):
      return self._kept(name, super().truncate(name, layer, x))

    def activation(self, name, layer, x):
      return self._kept(name, super().activation(name, layer, x))

    def add(self, branch, shortcut):
      nonlocal additions
      additions += 1
      return self._kept(f'add{additions - 1}', super().add(branch, shortcut))

    def _kept(self, name, share):
      found[name] = np.asarray(share)
      return share

  return Recorder


@contextlib.contextmanager
def recorded():
  """The shares of the simulation that runs inside."""
  found = Shares({}, {})
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(simulator, '_Offline', _recorder(simulator._Offline, found.client))
    patch.setattr(simulator, '_Online', _recorder(simulator._Online, found.server))
    yield found
