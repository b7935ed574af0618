"""What each party keeps of a prepared inference of one image, to be used once.

A second image under one preparation would show the server how the two differ, and
give the client two equations in what hides the weights: `spend` refuses it. What is
read from a file again is new to that check; whoever keeps files marks them as used.
"""

import dataclasses

import numpy as np

from safenet_jax.crypto import garbled_block
from safenet_jax.crypto import hashing
from safenet_jax.protocol import relu


@dataclasses.dataclass
class ClientLayer:
  """One activation layer: arrays have a leading axis of one image.

  blocks: of garbled channels.
  powers, alphas: of polynomial channels, uint64 [degree, 1, ...] and [1, 1, ...].
  keys: K_0, K_1 of the wrap bits of each output, uint64 [2, 1, ...].
  mask: r of what comes after the layer, uint64 [1, ...].
  """

  mask: np.ndarray
  blocks: list[relu.ClientBlock] = dataclasses.field(default_factory=list)
  powers: np.ndarray | None = None
  alphas: np.ndarray | None = None
  keys: list[np.ndarray] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class _Once:
  used: bool = dataclasses.field(default=False, init=False)

  def spend(self) -> None:
    """Raises ValueError when called again: every pad in here hides one message."""
    if self.used:
      raise ValueError('a preparation was used before, want a fresh one for every image')
    self.used = True


@dataclasses.dataclass
class ClientMaterial(_Once):
  """identifier: what both parties call it; mask: of the image; share: of the logits."""

  identifier: bytes
  mask: np.ndarray
  share: np.ndarray
  layers: dict[str, ClientLayer]

  def arrays(self) -> dict[str, np.ndarray]:
    """All of it by name, for a file."""
    found = {'mask': self.mask, 'share': self.share}
    for name, layer in self.layers.items():
      found[f'{name}/mask'] = layer.mask
      if layer.powers is not None and layer.alphas is not None:
        found |= {f'{name}/powers': layer.powers, f'{name}/alphas': layer.alphas}
      for i, keys in enumerate(layer.keys):
        found[f'{name}/keys/{i}'] = keys
      for i, block in enumerate(layer.blocks):
        garbled = block.garbled
        head = garbled.seed + garbled.check + block.key
        found |= {
            f'{name}/block/{i}/head': np.frombuffer(head, np.uint8),
            f'{name}/block/{i}/tables': garbled.tables,
            f'{name}/block/{i}/labels': block.labels,
            f'{name}/block/{i}/share': block.share,
            f'{name}/block/{i}/product': block.product_share,
        }
    return found

  @classmethod
  def from_arrays(cls, identifier: bytes, arrays: dict[str, np.ndarray]) -> 'ClientMaterial':
    """The inverse of `arrays`."""
    layers = {}
    for name in (key.removesuffix('/mask') for key in arrays if key.endswith('/mask')):
      def numbered(kind, name=name):
        found, i = [], 0
        while f'{name}/{kind.format(i)}' in arrays:
          found.append(f'{name}/{kind.format(i)}')
          i += 1
        return found

      blocks = []
      for head in numbered('block/{}/head'):
        at = head.removesuffix('head')
        raw, seed, key = arrays[head].tobytes(), garbled_block.SEED_BYTES, -hashing.KEY_BYTES
        garbled = garbled_block.GarbledBlock(raw[:seed], raw[seed:key], arrays[f'{at}tables'])
        blocks.append(relu.ClientBlock(
            garbled, arrays[f'{at}labels'], arrays[f'{at}share'], arrays[f'{at}product'], raw[key:]
        ))
      layers[name] = ClientLayer(
          arrays[f'{name}/mask'], blocks, arrays.get(f'{name}/powers'),
          arrays.get(f'{name}/alphas'), [arrays[key] for key in numbered('keys/{}')],
      )
    return cls(identifier, arrays['mask'], arrays['share'], layers)


@dataclasses.dataclass
class ServerLayer:
  """One activation layer, the counterpart of `ClientLayer`.

  choices: beta of the wrap bits of each output; chosen: K_beta.
  """

  blocks: list[relu.ServerBlock] = dataclasses.field(default_factory=list)
  pads: np.ndarray | None = None
  betas: np.ndarray | None = None
  choices: list[np.ndarray] = dataclasses.field(default_factory=list)
  chosen: list[np.ndarray] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class ServerMaterial(_Once):
  """u: by linear layer, uint64 [1, ...]; delta: of the garbler in that session."""

  identifier: bytes
  delta: np.ndarray
  u: dict[str, np.ndarray]
  layers: dict[str, ServerLayer]

  @property
  def nbytes(self) -> int:
    """Memory that it holds, but for small change."""
    total = sum(u.nbytes for u in self.u.values())
    for layer in self.layers.values():
      for array in (layer.pads, layer.betas, *layer.choices, *layer.chosen):
        total += 0 if array is None else array.nbytes
      for block in layer.blocks:
        total += block.encoding.nbytes + block.product_share.nbytes
    return total
