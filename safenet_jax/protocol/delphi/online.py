"""The online phase of both parties: one round trip for every activation layer.

           client                                       server
             --- x - r ------------------------------------>
    and for every activation layer
             <-- labels of s, select words, delta, d -------
             --- corrections E, masked words B ------------->
    at last
             <-- share of the logits -----------------------
    or, for the class alone
             <-- labels of s, as in `class_output` ---------------

x is the image and r the client's mask of it. s is the server's share of a linear layer's
output. The labels of s and the select words belong to ReLUs (`relu`); max pools have
labels only (`max_pool`). A max pool that is no part of an activation is a layer of its own.
delta are the differences delta_j of `polynomial`. d, E and B are the messages of
`truncation`. These modules of `protocol.layers`, and `linear`, say why the messages show
nothing.

A batch of images takes one preparation each, and no more round trips than one image.
"""

from collections.abc import Callable, Sequence
import math

import numpy as np

from safenet_jax.crypto import ring
from safenet_jax.crypto.garbled_circuits import garbling
from safenet_jax.fixed_point import pooling
from safenet_jax.models import layers as records
from safenet_jax.protocol.delphi.material import (
  ClientLayer,
  ClientMaterial,
  ServerLayer,
  ServerMaterial,
)
from safenet_jax.protocol.delphi.party import ClientParty, ServerParty
from safenet_jax.protocol.layers import (
  class_output,
  linear,
  max_pool,
  polynomial,
  relu,
  share_walks,
  truncation,
)
from safenet_jax.protocol.layers.structure import ActivationStructure
from safenet_jax.transport import frames, packed_words

# What the patches of a convolution may take at once. One image of ResNet-18's widest layer on
# 32 x 32 takes 5 MB.
_PATCHES_BYTES = 32 << 20


class Messages:
  """Parts of one activation layer's two messages, for a batch of images.

  labels: how many words of 64 bits the labels of s take.
  down: the parts of the server's message, in order: labels, select words, delta_j, and d
    of each output. Those that the layer has no use for are left out.
  up: the parts of the client's message: E and B of each output. Maxima that are compared
    again are no output; of these it is one word (`maximum_tree`).
  """

  def __init__(self, layer: ActivationStructure, images: int):
    self.labels = layer.label_words * images
    down = []
    if self.labels:
      down.append(packed_words.Words((self.labels,), 64))
    if layer.selected:
      shape = images, layer.words, layer.selected
      down.append(packed_words.Words(shape, layer.form.select_bits))
    if layer.form.polynomial:
      values = (layer.powers, images, *layer.polynomial_shape)
      down.append(packed_words.field(values, layer.form.modulus))
    outputs = layer.outputs
    self.down = down + [packed_words.Words((images, *shape), 1) for shape, _ in outputs]
    self.up = [
      packed_words.Words((images, *shape), width)
      for shape, rescale in outputs
      for width in (rescale.wrap_bits, rescale.bits)
    ]
    if not outputs:
      self.up = [packed_words.Words((images, *layer.garbled_shape), layer.bits)]


class ClientOnline(share_walks.Local):
  """The client's walk through the network.

  No value goes from layer to layer here: the client's shares are in the materials.
  """

  def __init__(self, party: ClientParty, output: str, materials: Sequence[ClientMaterial]):
    """Takes one of `structure.OUTPUTS`, and one material for each image of the batch."""
    super().__init__(party.model)
    self._party, self._channel, self._structure = party, party.channel, party.structure
    self._output, self._materials = output, materials
    self._layers = {layer.name: layer for layer in party.structure.activations}
    self._evaluators: dict[tuple, garbling.Evaluator] = {}

  def run(self, images: np.ndarray) -> np.ndarray:
    """Logits int64 [B, classes] of images uint8 [B, H, W, C], each with one material.

    Where the output is the class, these are classes int64 [B].

    Raises:
      ValueError: there are more or fewer images than materials, or a material was
        used before, or is for another output. Nothing was sent then.
    """
    count, bits = len(self._materials), self._structure.rings.values['input']
    with self._channel.scope(phase='online', layer='input', primitive='masked input'):
      x = ring.from_signed(self.model.encode(images), bits)
      # NumPy would broadcast a single mask to all images. A mask that is used twice shows
      # how two images differ.
      if len(x) != count:
        raise ValueError(f'{len(x)} images for {count} preparations, want one for each')
      for material in self._materials:
        material.spend(self._output)
      masked = ring.reduce(x - _join(m.mask for m in self._materials), bits)
      packed_words.send(self._channel, 'input', [packed_words.Words(masked.shape, bits)], [masked])
    records.run(self.model.layers, self, None)
    comparison = self._structure.comparison_for(self._output)
    if comparison:
      states = [material.argmax for material in self._materials]
      return class_output.online_client(self._channel, comparison, states)
    return self._logits(_join(m.share for m in self._materials))

  def _logits(self, ours: np.ndarray) -> np.ndarray:
    """Logits int64 [B, classes], from this party's share of them and the server's."""
    with self._channel.scope(phase='online', layer='logits', primitive='share'):
      bits = self._structure.rings.logits
      (theirs,) = packed_words.receive(
        self._channel, 'logits', [packed_words.Words(ours.shape, bits)]
      )
      return ring.reconstruct(ours, theirs, bits)

  def conv(self, name, layer, value):
    del name, layer, value

  dense = conv

  def activation(self, name, layer, value):
    del layer, value
    layer, form = self._layers[name], self._layers[name].form
    mine = self._ready(layer)
    messages = Messages(layer, len(mine))
    with self._channel.scope(phase='online', layer=name, primitive='activation'):
      values = packed_words.receive(self._channel, 'activation', messages.down)
    shares = []
    if layer.blocks:
      labels = values.pop(0) if messages.labels else None
      words = values.pop(0) if layer.selected else None
      shares.append(self._garbled(layer, mine, labels, words))
    if form.polynomial:
      deltas, *values = values
      with self._channel.scope(phase='online', layer=name, primitive='polynomial'):
        powers, alphas = (
          np.concatenate(parts, axis=1) for parts in zip(*((m.powers, m.alphas) for m in mine))
        )
        shares.append(polynomial.online_client(np, powers, alphas, deltas, form))
    with self._channel.scope(phase='online', layer=name, primitive='truncation'):
      mask, first = _join(m.mask for m in mine), 0
      answer: list[np.ndarray] = []
      for i, (v, d, (shape, rescale)) in enumerate(zip(shares, values, layer.outputs, strict=True)):
        end = first + shape[-1]
        keys = np.concatenate([m.keys[i] for m in mine], axis=1)
        answer += truncation.online_client(
          np, _pool(v, form.summed, rescale.modulus), keys, d, mask[..., first:end], rescale
        )
        first = end
      packed_words.send(self._channel, 'masked', messages.up, answer)

  def _ready(self, layer: ActivationStructure) -> list[ClientLayer]:
    """A layer's material of each image. Other modes make it online, in part."""
    return [material.layers[layer.name] for material in self._materials]

  def _garbled(self, layer: ActivationStructure, mine, labels, words) -> np.ndarray:
    """The client's share of what a layer's circuits give, [B, ...]."""
    with self._channel.scope(phase='online', layer=layer.name, primitive='evaluation'):
      values, known, start = [], [], 0
      for image, material in enumerate(mine):
        for block, state in zip(layer.blocks, material.blocks, strict=True):
          end = start + layer.width * block.size * 2
          theirs = labels[start:end].reshape(layer.width, block.size, 2)
          evaluator = self._evaluator(layer, block.size)
          if layer.form.maximum:
            v = frames.checked(
              max_pool.online_client, state, evaluator, theirs, layer.form, block.count
            )
          else:
            word = words[image, :, block.first : block.end]
            v = frames.checked(relu.online_client, state, evaluator, theirs, word, layer.form)
            known.append(state.share)
          values.append(v)
          start = end
      if layer.form.maximum:
        return _maps(layer, values)
      v = relu.joined(values, known, layer.form, layer.tests, len(mine))
      return v.reshape(-1, *layer.garbled_shape)

  def _evaluator(self, layer: ActivationStructure, size: int) -> garbling.Evaluator:
    key = layer.circuit, size
    if key not in self._evaluators:
      self._evaluators[key] = garbling.Evaluator(*key)
    return self._evaluators[key]


class ServerOnline(share_walks.Local):
  """The server's walk through the network, from layer to layer with its value.

  That is m before a linear layer, its input less the client's mask; and s after it.
  """

  server = True

  def __init__(self, party: ServerParty, output: str, materials: Sequence[ServerMaterial]):
    """Takes one of `structure.OUTPUTS`, and one material for each image of the batch."""
    super().__init__(party.model.public)
    self._party, self._channel, self._structure = party, party.channel, party.structure
    self._output, self._materials = output, materials
    self._layers = {layer.name: layer for layer in party.structure.activations}

  def run(self) -> None:
    """Serves one batch, one material for each image.

    ValueError if a material was used before, or is for another output.
    """
    count, bits = len(self._materials), self._structure.rings.values['input']
    for material in self._materials:
      material.spend(self._output)
    with self._channel.scope(phase='online', layer='input', primitive='masked input'):
      words = packed_words.Words((count, *self._structure.input_shape), bits)
      (m,) = packed_words.receive(self._channel, 'input', [words])
    s = records.run(self.model.layers, self, m)
    comparison = self._structure.comparison_for(self._output)
    if comparison:
      states = [material.argmax for material in self._materials]
      class_output.online_server(self._channel, comparison, states, s)
      return
    self._send_logits(s)

  def _send_logits(self, s: np.ndarray) -> None:
    """Sends the server's share of the logits."""
    with self._channel.scope(phase='online', layer='logits', primitive='share'):
      words = packed_words.Words(s.shape, self._structure.rings.logits)
      packed_words.send(self._channel, 'logits', [words], [ring.reduce(s, words.bits)])

  def conv(self, name, layer, m):
    with self._channel.scope(phase='online', layer=name, primitive='linear'):
      return self._linear(name, layer, m, _join(material.u[name] for material in self._materials))

  def _linear(self, name: str, layer, m: np.ndarray, u: np.ndarray) -> np.ndarray:
    """The share s of a layer's output, from its masked input m and the masks u."""
    weights = self._party.model.linear[name]
    taps = weights.kernel[..., 0, 0].size
    # The client says how many images there are. What they take here is not among what was reserved.
    patches = taps * m.shape[-1] * math.prod(u.shape[1:-1]) * m.itemsize
    step = max(1, _PATCHES_BYTES // patches)
    return _join(
      linear.online_server(
        np,
        m[i : i + step],
        u[i : i + step],
        weights.kernel,
        weights.bias,
        layer,
        limb=weights.limb,
        bits=self._structure.rings.linear[name],
      )
      for i in range(0, len(m), step)
    )

  dense = conv

  def constant(self, name, layer, share):
    del layer, share
    return self._constant(self._party.model, name, len(self._materials))

  def activation(self, name, layer, s):
    del layer
    layer, form = self._layers[name], self._layers[name].form
    mine = self._ready(layer)
    messages = Messages(layer, len(mine))
    finish = self._garbled(layer, mine, s[..., : form.relu]) if layer.blocks else None
    parts = [self._polynomial(layer, mine, s[..., form.relu :])] if form.polynomial else []
    if finish is not None:
      parts.insert(0, finish())
    values, shares = [], []
    for *sent, rho in parts:
      values += sent
      shares.append(rho)
    outputs = layer.outputs
    with self._channel.scope(phase='online', layer=name, primitive='truncation'):
      shares = [
        _pool(rho, form.summed, rescale.modulus) for rho, (_, rescale) in zip(shares, outputs)
      ]
      for i, (rho, (_, rescale)) in enumerate(zip(shares, outputs)):
        values.append(truncation.online_server(rho, _join(m.choices[i] for m in mine), rescale))
    with self._channel.scope(phase='online', layer=name, primitive='activation'):
      packed_words.send(self._channel, 'activation', messages.down, values)
      answer = iter(packed_words.receive(self._channel, 'masked', messages.up))
    with self._channel.scope(phase='online', layer=name, primitive='truncation'):
      return np.concatenate(
        [
          truncation.finish_server(
            rho, _join(m.chosen[i] for m in mine), next(answer), next(answer), rescale
          )
          for i, (rho, (_, rescale)) in enumerate(zip(shares, outputs))
        ],
        axis=-1,
      )

  def _ready(self, layer: ActivationStructure) -> list[ServerLayer]:
    """A layer's material of each image. Other modes make it online, in part."""
    return [material.layers[layer.name] for material in self._materials]

  def _garbled(self, layer: ActivationStructure, mine, s) -> Callable[[], tuple]:
    """A function that gives what is sent for a layer's circuits, and the server's share, [B, ...].

    The share is of what the circuits give. Other modes wait for the client there, so that
    the caller computes polynomials before.
    """
    with self._channel.scope(phase='online', layer=layer.name, primitive='labels'):
      found = (self._max_pool if layer.form.maximum else self._relu)(layer, mine, s)
      return lambda: found

  def _polynomial(self, layer: ActivationStructure, mine, s) -> tuple[np.ndarray, np.ndarray]:
    """The message delta of polynomial channels, and the server's share of their values."""
    with self._channel.scope(phase='online', layer=layer.name, primitive='polynomial'):
      pads, betas = (
        np.concatenate(parts, axis=1) for parts in zip(*((m.pads, m.betas) for m in mine))
      )
      coefficients = self._party.model.polynomials[layer.name]
      return polynomial.online_server(np, s, coefficients, pads, betas, layer.form, self.bits)

  def _relu(self, layer: ActivationStructure, mine, s):
    labels, words, rhos, shares = [], [], [], []
    for share, state in zip(s, mine, strict=True):
      flat = relu.tested(share, layer.form, layer.tests, server=True)
      for block, garbled in zip(layer.blocks, state.blocks, strict=True):
        shares.append(flat[block.first : block.end])
        sent, word, rho = relu.online_server(garbled, shares[-1], state.delta, layer.form)
        labels.append(sent.reshape(-1))
        words.append(word)
        rhos.append(rho)
    rho = relu.joined(rhos, shares, layer.form, layer.tests, len(mine))
    ordered = np.concatenate(words, axis=1).reshape(layer.words, len(mine), layer.selected)
    return np.concatenate(labels), ordered.swapaxes(0, 1), rho.reshape(-1, *layer.garbled_shape)

  def _max_pool(self, layer: ActivationStructure, mine, s):
    labels, shares = [], []
    for state, part in zip(mine, s):
      words = max_pool.windows(part[None], layer.form, server=True)
      for block, garbled in zip(layer.blocks, state.blocks, strict=True):
        message, rho = max_pool.online_server(
          garbled, words[:, block.first : block.end], layer.form
        )
        labels.append(message.reshape(-1))
        shares.append(rho)
    return np.concatenate(labels), _maps(layer, shares)


def _join(arrays) -> np.ndarray:
  """Arrays of one image each, as one batch."""
  return np.concatenate(list(arrays))


def _maps(layer: ActivationStructure, parts: list[np.ndarray]) -> np.ndarray:
  """A party's share of what a max pool's circuits give, [B, ...], from that of each block."""
  count = len(layer.blocks)
  images = [parts[first : first + count] for first in range(0, len(parts), count)]
  return _join(max_pool.joined(image, layer.form) for image in images)


def _pool(share: np.ndarray, pool: records.AveragePool | None, modulus: int) -> np.ndarray:
  return share if pool is None else pooling.sums(np, share, pool) % np.uint64(modulus)
