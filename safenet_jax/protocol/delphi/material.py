"""What each party keeps of a prepared inference of one image, to be used once.

A second image under the same preparation would show the server how the two images differ,
and would give the client two equations in what hides the weights. `spend` refuses it. But
that check knows nothing of a preparation that is read from its file again: who keeps
preparations in files has to mark them as used.

The symbols are those of `protocol.layers`: `linear`, `relu`, `polynomial` and `truncation`.
"""

from collections.abc import Iterator, Mapping
import dataclasses
import itertools
import math
from typing import Any

import numpy as np

from safenet_jax.crypto.garbled_circuits import garbled_block
from safenet_jax.protocol.delphi import progress
from safenet_jax.protocol.layers import class_output, max_pool, millionaires, relu
from safenet_jax.protocol.layers.structure import OUTPUTS, Structure

ClientBlock = relu.ClientBlock | max_pool.ClientBlock | millionaires.ClientBlock
ServerBlock = relu.ServerBlock | max_pool.ServerBlock | millionaires.ServerBlock


@dataclasses.dataclass
class ClientLayer:
  """What the client keeps of one activation layer. The axis of size 1 is that of the image.

  mask: r, the mask of what comes after the layer, uint64 [1, ...].
  blocks: of garbled channels.
  powers: c', ..., c'^degree of polynomial channels, uint64 [degree, 1, ...].
  alphas: the sum of the alpha_j of polynomial channels, uint64 [1, 1, ...].
  keys: K_0 and K_1 for the truncation of each output, uint64 [2, 1, ...].
  second: of a level of `maximum_tree`, b_c, uint64 [1, ...].
  share: c of garbled channels, uint64 [1, ...], where they are garbled online; else None.
  """

  mask: np.ndarray
  blocks: list[ClientBlock] = dataclasses.field(default_factory=list)
  powers: np.ndarray | None = None
  alphas: np.ndarray | None = None
  keys: list[np.ndarray] = dataclasses.field(default_factory=list)
  second: np.ndarray | None = None
  share: np.ndarray | None = None


@dataclasses.dataclass
class _Once:
  # Of the session that made it; a server checks it before an inference.
  mode: str = dataclasses.field(default='', init=False)
  used: bool = dataclasses.field(default=False, init=False)
  argmax: Any = dataclasses.field(default=None, kw_only=True)
  # What the preparation is for, one of `structure.OUTPUTS`.
  output: str = dataclasses.field(default=OUTPUTS[0], kw_only=True)

  def spend(self, output: str) -> None:
    """Marks the preparation as used, for an inference that ends in `output`.

    Raises:
      ValueError: it was used before, and every pad in it may hide one message only. Or it
        is for another output: for a class it has no share of the logits, and for logits it
        has no comparison of them.
    """
    if self.output != output:
      raise ValueError(f'a preparation for {self.output}, want one for {output}')
    if self.used:
      raise ValueError('a preparation was used before, want a fresh one for every image')
    self.used = True


@dataclasses.dataclass
class ClientMaterial(_Once):
  """What the client keeps of one prepared inference.

  identifier: the name of the preparation, the same for both parties.
  mask: r of the image, uint64 [1, H, W, C].
  share: the client's share of the logits, uint64 [1, classes]; empty for a class.
  layers: of each activation layer, by name.
  argmax: `class_output.ClientState` for a class, else None.
  """

  identifier: bytes
  mask: np.ndarray
  share: np.ndarray
  layers: Mapping[str, ClientLayer]

  def arrays(self) -> dict[str, np.ndarray]:
    """All of its arrays by name, for a file; the identifier is not among them."""
    found = self.own_arrays()
    for name, layer in self.layers.items():
      found |= layer_arrays(name, layer)
    return found

  def own_arrays(self) -> dict[str, np.ndarray]:
    """Those of `arrays` that do not belong to a layer."""
    found = {'mask': self.mask, 'share': self.share}
    if self.argmax is not None:
      found |= {f'argmax/{part}': array for part, array in _arrays(self.argmax).items()}
    return found

  @classmethod
  def from_arrays(
    cls, identifier: bytes, arrays: Mapping[str, np.ndarray], output: str
  ) -> 'ClientMaterial':
    """The inverse of `arrays`; takes the arrays of a layer when the layer is asked for."""
    start = 'argmax/'
    last = {key.removeprefix(start): arrays[key] for key in arrays if key.startswith(start)}
    return cls(
      identifier,
      arrays['mask'],
      arrays['share'],
      _Layers(arrays),
      argmax=class_output.ClientState(_garbled(last), last['labels'], last['decoding'])
      if last
      else None,
      output=output,
    )


def layer_arrays(name: str, layer: ClientLayer) -> dict[str, np.ndarray]:
  """The arrays of one layer by name, for a file."""
  found = {f'{name}/mask': layer.mask}
  if layer.powers is not None and layer.alphas is not None:
    found |= {f'{name}/powers': layer.powers, f'{name}/alphas': layer.alphas}
  if layer.second is not None:
    found[f'{name}/second'] = layer.second
  if layer.share is not None:
    found[f'{name}/share'] = layer.share
  for i, keys in enumerate(layer.keys):
    found[f'{name}/keys/{i}'] = keys
  for i, block in enumerate(layer.blocks):
    found |= {f'{name}/block/{i}/{part}': array for part, array in _arrays(block).items()}
  return found


class _Layers(Mapping[str, ClientLayer]):
  """Layers by name, each made of its arrays when it is asked for."""

  def __init__(self, arrays: Mapping[str, np.ndarray]):
    self._arrays = arrays
    self._names = [key.removesuffix('/mask') for key in arrays if key.endswith('/mask')]

  def __len__(self) -> int:
    return len(self._names)

  def __iter__(self) -> Iterator[str]:
    return iter(self._names)

  def __getitem__(self, name: str) -> ClientLayer:
    start = f'{name}/'
    found = {
      key.removeprefix(start): self._arrays[key] for key in self._arrays if key.startswith(start)
    }

    def numbered(kind: str) -> Iterator[str]:
      return itertools.takewhile(found.__contains__, map(kind.format, itertools.count()))

    blocks = []
    for head in numbered('block/{}/head'):
      at = head.removesuffix('head')
      blocks.append(_block({k.removeprefix(at): v for k, v in found.items() if k.startswith(at)}))
    keys = [found[key] for key in numbered('keys/{}')]
    powers, alphas, second, share = map(found.get, ('powers', 'alphas', 'second', 'share'))
    return ClientLayer(found['mask'], blocks, powers, alphas, keys, second, share)


def _arrays(block: ClientBlock | class_output.ClientState) -> dict[str, np.ndarray]:
  """A block's parts by name."""
  if isinstance(block, millionaires.ClientBlock):
    head = np.frombuffer(block.key, np.uint8)
    return {'head': head} | {name: part for name, part in block._asdict().items() if name != 'key'}
  garbled = block.garbled
  found = {
    'head': np.frombuffer(garbled.seed + garbled.check, np.uint8),
    'tables': garbled.tables,
    'labels': block.labels,
  }
  if isinstance(block, class_output.ClientState):
    return found | {'decoding': block.decoding}
  if isinstance(block, max_pool.ClientBlock):
    return found | {'mask_labels': block.mask_labels, 'decoding': block.decoding}
  return found | {
    'share': block.share,
    'product': block.product_share,
    'key': np.frombuffer(block.key, np.uint8),
  }


def _block(arrays: dict[str, np.ndarray]) -> ClientBlock:
  """The inverse of `_arrays` for a block of a layer."""
  if 'triples' in arrays:
    head = arrays.pop('head')
    return millionaires.ClientBlock(key=head.tobytes(), **arrays)
  garbled = _garbled(arrays)
  if 'decoding' in arrays:
    return max_pool.ClientBlock(
      garbled, arrays['labels'], arrays['mask_labels'], arrays['decoding']
    )
  return relu.ClientBlock(
    garbled, arrays['labels'], arrays['share'], arrays['product'], arrays['key'].tobytes()
  )


def _garbled(arrays: dict[str, np.ndarray]) -> garbled_block.GarbledBlock:
  raw, seed = arrays['head'].tobytes(), garbled_block.SEED_BYTES
  return garbled_block.GarbledBlock(raw[:seed], raw[seed:], arrays['tables'])


@dataclasses.dataclass
class ServerLayer:
  """What the server keeps of one activation layer, the counterpart of `ClientLayer`.

  delta: the difference of the two labels of every wire in the session that made it, uint64 [2].
  blocks: of garbled channels.
  pads: rho_j of polynomial channels, uint64 [products, 1, ...].
  betas: the sum of the beta_j of polynomial channels, uint64 [1, 1, ...].
  choices: beta for the truncation of each output, uint64 [1, ...].
  chosen: K_beta of each output, uint64 [1, ...].
  """

  delta: np.ndarray
  blocks: list[ServerBlock] = dataclasses.field(default_factory=list)
  pads: np.ndarray | None = None
  betas: np.ndarray | None = None
  choices: list[np.ndarray] = dataclasses.field(default_factory=list)
  chosen: list[np.ndarray] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class ServerMaterial(_Once):
  """What the server keeps of one prepared inference.

  identifier: the name of the preparation, the same for both parties.
  u: the masks of the outputs of linear layers, by name, uint64 [1, ...].
  layers: of each activation layer, by name.
  argmax: `class_output.ServerState` for a class, else None.
  """

  # Set by who made it: by what the client knows it that was not told the identifier.
  begun: progress.Begun = dataclasses.field(default=progress.Begun(b'', 0), init=False)

  identifier: bytes
  u: dict[str, np.ndarray]
  layers: dict[str, ServerLayer]

  @property
  def nbytes(self) -> int:
    """Bytes of its arrays and labels. Small parts, such as keys, are left out."""
    total = sum(u.nbytes for u in self.u.values())
    total += 0 if self.argmax is None else self.argmax.nbytes
    for layer in self.layers.values():
      for array in (layer.pads, layer.betas, *layer.choices, *layer.chosen):
        total += 0 if array is None else array.nbytes
      total += sum(block.nbytes for block in layer.blocks)
    return total

  @classmethod
  def size(cls, structure: Structure, output: str) -> int:
    """What `nbytes` of one preparation for `output` will be, known before it is made."""
    words = sum(math.prod(layer.output_shape) for layer in structure.linear.values())
    prepared = [layer.prepared for layer in structure.activations]
    for layer in prepared:
      if layer.powers:
        words += (layer.powers + 1) * math.prod(layer.polynomial_shape)
      words += 2 * sum(math.prod(shape) for shape, _ in layer.outputs)
    kept = sum(layer.kept for layer in prepared)
    comparison = structure.comparison_for(output)
    if comparison:
      kept += 16 * comparison.output_labels
    return 8 * words + kept
