"""Bytes that each party holds at most at once for one inference."""

from collections.abc import Mapping

from safenet_jax.crypto.homomorphic import bfv, packing
from safenet_jax.protocol.delphi import online
from safenet_jax.protocol.delphi.material import ServerMaterial
from safenet_jax.protocol.delphi.mode import Mode
from safenet_jax.protocol.layers.structure import Structure

_WORD = 8


def peaks(
  structure: Structure,
  contexts: Mapping[int, bfv.Context],
  mode: Mode,
  costs: Mapping[str, float],
) -> dict[str, int]:
  """The most that each party's process holds, by party.

  Args:
    structure: of the network.
    contexts: of a session.
    mode: how it is served.
    costs: bytes of a 'process' that has imported everything, of a homomorphic
      'context', and of what each party works in ('client', 'server').

  One image at a time, one client, homomorphic encryption in the server's thread.
  """
  fixed = costs['process'] + costs['context'] * len(contexts)
  held = mode.costs.held(structure)
  messages = [
    sum(part.size for part in online.Messages(layer, structure.bits, 1).down)
    for layer in structure.activations
  ]
  # A message is there as bytes and as words.
  client = fixed + costs['client'] + held['client'] + 2 * max(messages, default=0)
  weights = 0
  for layer in structure.linear.values():
    layout = packing.layout(layer, contexts[0].degree)
    weights += layout.inputs * layout.outputs * contexts[0].degree * contexts[0].moduli.size * _WORD
  material = ServerMaterial.size(structure, 'logits')
  server = fixed + costs['server'] + weights + material + held['server']
  return {'client': round(client), 'server': round(server)}
