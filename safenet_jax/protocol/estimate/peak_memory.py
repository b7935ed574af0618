"""The most bytes that each party holds at once during one inference."""

from collections.abc import Mapping

from safenet_jax.crypto.homomorphic import bfv, encrypted_convolution, workers
from safenet_jax.protocol.delphi import online
from safenet_jax.protocol.delphi.material import ServerMaterial
from safenet_jax.protocol.delphi.mode import Mode
from safenet_jax.protocol.layers.structure import Structure


def peaks(
  structure: Structure,
  contexts: Mapping[int, bfv.Context],
  mode: Mode,
  costs: Mapping[str, float],
  weights_bytes: int = 4 << 30,
) -> dict[str, int]:
  """By party, the most bytes that its process holds.

  This is for one client and one image at a time, with homomorphic encryption in the
  server's thread.

  Args:
    structure: of the network.
    contexts: of a session.
    mode: how it is served.
    costs: bytes of a 'process' that has imported everything, of a homomorphic
      'context', and of the working memory of each party ('client', 'server').
    weights_bytes: as of `ServerOptions`.
  """
  fixed = costs['process'] + costs['context'] * len(contexts)
  held = mode.costs.held(structure)
  messages = [
    sum(part.size for part in online.Messages(layer, 1).down) for layer in structure.activations
  ]
  # A message is held twice: as bytes, and as words.
  client = fixed + costs['client'] + held['client'] + 2 * max(messages, default=0)
  made = [layer.made_online for layer in structure.activations]
  blocks = [sum(mode.costs.held_of_block(part, b) for b in part.blocks) for part in made if part]
  client += max(blocks, default=0)
  sizes = [
    encrypted_convolution.prepared_size(contexts[structure.plain_modulus(name)], layer)
    for name, layer in structure.linear.items()
  ]
  kept = workers.kept(sizes, weights_bytes)
  weights = sum(size for size, ready in zip(sizes, kept) if ready)
  weights += 0 if all(kept) else encrypted_convolution.PART_BYTES
  material = ServerMaterial.size(structure, 'logits')
  server = fixed + costs['server'] + weights + material + held['server']
  return {'client': round(client), 'server': round(server)}
