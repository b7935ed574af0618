"""Bytes that each party holds for one inference: what it keeps, and at most at once."""

from collections.abc import Mapping
import math

from safenet_jax.crypto.garbled_circuits import garbled_block
from safenet_jax.crypto.homomorphic import bfv, packing
from safenet_jax.protocol.delphi import online
from safenet_jax.protocol.delphi.material import ServerMaterial
from safenet_jax.protocol.layers.structure import ActivationStructure, Structure

_WORD, _LABEL = 8, 16


def client_material(structure: Structure) -> int:
  """Of a prepared inference's arrays, in Delphi's mode."""
  total = _WORD * (math.prod(structure.input_shape) + structure.logits)
  for layer in structure.activations:
    values = math.prod(layer.polynomial_shape)
    # The mask of every output, and both keys of its wrap bit.
    total += 3 * _WORD * _outputs(layer)
    total += _WORD * values * (layer.form.degree + 1) if layer.powers else 0
    for block in layer.blocks:
      total += math.prod(garbled_block.tables_shape(layer.circuit, block.size)) * _WORD
      total += _LABEL * layer.width * block.size
      if layer.form.maximum:
        total += layer.form.select_bits * (_LABEL * block.size + block.size // 8)
      else:
        total += 2 * _WORD * block.count
  return total


def peaks(
  structure: Structure,
  contexts: Mapping[int, bfv.Context],
  mode: str,
  costs: Mapping[str, float],
) -> dict[str, int]:
  """The most that each party's process holds, by party.

  Args:
    structure: of the network.
    contexts: of a session.
    mode: how linear layers are served.
    costs: bytes of a 'process' that has imported everything, of a homomorphic
      'context', and of what each party works in ('client', 'server').

  One image at a time, one client, homomorphic encryption in the server's thread.
  """
  fixed = costs['process'] + costs['context'] * len(contexts)
  labels = _LABEL * structure.transfers
  messages = [
    sum(part.size for part in online.Messages(layer, structure.bits, 1).down)
    for layer in structure.activations
  ]
  # A message is there as bytes and as words.
  client = fixed + costs['client'] + client_material(structure) + 2 * max(messages, default=0)
  weights = 0
  for layer in structure.linear.values():
    layout = packing.layout(layer, contexts[0].degree)
    weights += layout.inputs * layout.outputs * contexts[0].degree * contexts[0].moduli.size * _WORD
  server = fixed + costs['server'] + weights + ServerMaterial.size(structure) + labels
  if mode == 'gazelle':
    # Circuits are garbled under labels of their own, and the client's are corrected online.
    server, client = server + labels, client + labels // _LABEL // 8
  return {'client': round(client), 'server': round(server)}


def _outputs(layer: ActivationStructure) -> int:
  return math.prod(layer.pooled_shape) * (layer.form.relu + layer.form.polynomial)
