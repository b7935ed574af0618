"""The offline phase of the client in the mode `minionn`; the server's is Delphi's.

Both parties leave circuits out, and so `delphi.client_offline` shows the messages: those of linear
layers, of the products of polynomials, and the server's random choices for truncations. `online`
has the circuits. The class alone is garbled here, as in Delphi: it is no activation.
"""

import numpy as np

from safenet_jax.protocol.delphi import client_offline


class _Image(client_offline.Image):
  """One image's offline phase, which keeps the client's shares of what circuits read."""

  def leave(self, number: int) -> None:
    for layer in self.network.activations:
      if layer.blocks and layer.name in self.layers:
        share = self.inputs[layer.name][..., : layer.form.relu]
        self.layers[layer.name].share = np.ascontiguousarray(share)
    super().leave(number)


class ClientOffline(client_offline.ClientOffline):
  """The client's offline phase in one session."""

  _kind = _Image
