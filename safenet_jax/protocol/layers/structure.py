"""What both parties know of one inference: its linear layers, blocks and message sizes."""

import dataclasses
import functools
import itertools
import math

import numpy as np

from safenet_jax.crypto import hashing, ring
from safenet_jax.crypto.garbled_circuits import argmax, circuits, wires
from safenet_jax.crypto.homomorphic import packing
from safenet_jax.fixed_point import rings
from safenet_jax.fixed_point.formats import ActivationFormat, Rescale
from safenet_jax.fixed_point.model import PublicModel
from safenet_jax.fixed_point.rings import Rings
from safenet_jax.models import layers as records
from safenet_jax.protocol.layers import (
  blocks,
  max_pool,
  polynomial,
  relu,
  share_walks,
)
from safenet_jax.protocol.layers.blocks import Block

# What the client gets: the logits; nothing but the index of the largest; or this index if all
# logits are in the range of the calibration images, and otherwise only that they are not.
OUTPUTS = ('logits', 'class', 'checked_class')


@dataclasses.dataclass(frozen=True)
class ActivationStructure:
  """One activation layer of one image.

  A garbled instance is one circuit: a sign test of a value, or the maxima of some windows
  where the layer has a max pool, or is one. A label transfer is the oblivious transfer in which the
  client gets the label of one of its bits.

  name, form: of the layer.
  bits: width in bits of the ring of its outputs.
  offset: where the layer's label transfers start among those of the image.
  """

  name: str
  form: ActivationFormat
  bits: int
  offset: int

  @property
  def prepared(self) -> 'ActivationStructure':
    """What of the layer the offline phase makes ready: all of it, but in the mode `minionn`."""
    return self

  @property
  def made_online(self) -> 'ActivationStructure | None':
    """What of the layer is made ready online, just before it is used; None for nothing."""
    return None

  @classmethod
  def of(
    cls, name: str, form: ActivationFormat, bits: int, offset: int
  ) -> tuple['ActivationStructure', ...]:
    """What an inference goes through for one record; the last one has its name and outputs."""
    return (cls(name, form, bits, offset),)

  @property
  def owner(self) -> str:
    """Name of the record that it is a part of."""
    return self.name

  @property
  def pool(self) -> ActivationFormat | None:
    """Format of the max pool that it is a level of, where transfers compare (`maximum_tree`)."""
    return None

  @functools.cached_property
  def blocks(self) -> tuple[Block, ...]:
    """The blocks of the layer's garbled instances."""
    if self.form.maximum:
      return max_pool.cut(self.form)
    return relu.cut(math.prod(self.garbled_shape) * self.tests)

  @property
  def tests(self) -> int:
    """Sign tests of each value."""
    return relu.tests(self.form)

  @property
  def words(self) -> int:
    """Select words of each sign test."""
    return relu.words(self.form)

  @property
  def circuit(self) -> circuits.Circuit:
    """The circuit of one garbled instance."""
    return max_pool.circuit(self.form) if self.form.maximum else relu.circuit(self.form)

  @property
  def width(self) -> int:
    """Bits of the client's shares that enter one circuit; the server's are as many."""
    words = max_pool.words(self.form) if self.form.maximum else 1
    return words * (self.form.sign_bits - self.form.dropped)

  def entering(self, share: np.ndarray) -> list[np.ndarray]:
    """The client's bits that enter each block, packed: uint8 [width, size / 8] each.

    `share` is the client's share of the garbled channels, uint64 [1, ..., channels].
    """
    form = self.form
    if form.maximum:
      words = max_pool.windows(share, form, server=False)
    else:
      words = relu.sign_words(relu.tested(share, form, self.tests, server=False)[None], form)
    bits = form.sign_bits - form.dropped
    return [blocks.pack(words[:, b.first : b.end], bits, b.size) for b in self.blocks]

  @property
  def transfers(self) -> int:
    """Label transfers: one for every bit of the client's shares, padding included."""
    return self.width * sum(block.size for block in self.blocks)

  @property
  def label_words(self) -> int:
    """Words of 64 bits of the labels that the server sends online for its own bits."""
    return 2 * self.transfers

  @property
  def kept(self) -> int:
    """Bytes that the server keeps of the garbled instances, but for small keys."""
    labels = sum(len(self.circuit.outputs) * block.size for block in self.blocks)
    words = max_pool.outputs(self.form) if self.form.maximum else 1
    return 16 * labels + 8 * words * self.instances

  @property
  def instances(self) -> int:
    """Garbled instances, without padding."""
    return sum(block.count for block in self.blocks)

  @property
  def selected(self) -> int:
    """Instances in which a sign selects shares; none with a max pool.

    A maximum comes out of its circuit as a whole word, so nothing is left to select.
    """
    return 0 if self.form.maximum else self.instances

  @property
  def choices(self) -> int:
    """Transfers in which the server chooses: for each sign test, and for each output value.

    It chooses with the bit that colour 0 stands for (`relu`), and with a random bit
    (`truncation`).
    """
    return self.selected + sum(math.prod(shape) for shape, _ in self.outputs)

  @property
  def garbled_shape(self) -> tuple[int, ...]:
    """(H, W, C) or (C,) of what the circuits give; maxima are pooled already."""
    shape = self.pooled_shape if self.form.maximum else self.form.map_shape
    return (*shape, self.form.relu)

  @property
  def polynomial_shape(self) -> tuple[int, ...]:
    """(H, W, C) or (C,) of the polynomial channels, before a pool."""
    return (*self.form.map_shape, self.form.polynomial)

  @property
  def powers(self) -> int:
    """How many products of the two parties' secrets each polynomial value takes."""
    return polynomial.products(self.form) if self.form.polynomial else 0

  @property
  def pooled_shape(self) -> tuple[int, ...]:
    """(H, W) after the pool, or () after a dense layer."""
    return self.form.pooled_shape

  @property
  def outputs(self) -> list[tuple[tuple[int, ...], Rescale]]:
    """Shape and truncation of the garbled output and of the polynomial one, if they exist."""
    widths = [width for width in (self.form.relu, self.form.polynomial) if width]
    return [
      ((*self.pooled_shape, width), rescale)
      for width, rescale in zip(widths, self.form.rescales(self.bits))
    ]


@dataclasses.dataclass(frozen=True)
class Comparison:
  """The garbled comparison of one image's logits, see `class_output`.

  tournament: its numbers of words and bits.
  offset: where the comparison's label transfers start among those of the image.
  """

  tournament: argmax.Tournament
  offset: int

  @property
  def count(self) -> int:
    """How many logits there are."""
    return self.tournament.count

  @property
  def labels(self) -> tuple[int, int, int]:
    """Shape of the labels of one party's share."""
    return self.tournament.entering, self.count, 2

  @property
  def size(self) -> int:
    """Logits with the padding of their block."""
    return argmax.stages(self.tournament)[0].size

  @property
  def transfers(self) -> int:
    """Label transfers: one for every bit of the client's share, padding included."""
    return self.tournament.entering * self.size

  @property
  def output_labels(self) -> int:
    """Output labels that the garbler keeps, those of the result, padding included."""
    last = argmax.stages(self.tournament)[-1]
    return len(last.circuit.outputs) * last.size

  def entering(self, share: np.ndarray) -> np.ndarray:
    """The bits of a share uint64 [count], packed: uint8 [entering, size / 8]."""
    words = np.zeros(self.size, np.uint64)
    words[: self.count] = ring.reduce(share, self.tournament.entering)
    return wires.pack(words, self.tournament.entering)


@dataclasses.dataclass(frozen=True)
class Structure:
  """The public shape of one inference of one image.

  bits: width of the widest ring, in which polynomial channels get their inputs.
  rings: l of every linear layer, and the widths of other shares.
  input_shape: (H, W, C) of an image.
  linear: the linear layers by name; a dense layer is a convolution of one pixel.
  shapes: the output shape of each linear layer by name: (H, W, C), or (C,).
  waves: names of the linear layers that are prepared together, wave by wave (`share_walks.Waves`).
  drawn: the masks that are drawn as they are encrypted, by linear layer (`share_walks.Drawn`).
  activations: with max pools that are no part of one, as an inference reaches them.
  logits: how many there are.
  comparisons: of the logits, by the output of an inference, for those that end in a class.
  """

  bits: int
  rings: Rings
  input_shape: tuple[int, ...]
  linear: dict[str, packing.Convolution]
  shapes: dict[str, tuple[int, ...]]
  waves: tuple[tuple[str, ...], ...]
  drawn: dict[str, str]
  activations: tuple[ActivationStructure, ...]
  logits: int
  comparisons: dict[str, Comparison]

  @classmethod
  def of(
    cls, model: PublicModel, kind: type[ActivationStructure] = ActivationStructure
  ) -> 'Structure':
    """The structure of a model, with activation layers of the kind that a mode has.

    Raises:
      ValueError: a linear layer has a ring that does not fit.
    """
    waves = share_walks.Waves()
    records.run(model.layers, waves, 0)
    drawn = share_walks.Drawn(model)
    records.run(model.layers, drawn, (frozenset(['input']), True))
    widths = rings.of(model)
    linear: dict[str, packing.Convolution] = {}
    found: dict[str, tuple[int, ...]] = {}
    activations = []
    offset = 0
    shapes = records.shapes(model.layers, model.input_shape)
    for shape in shapes:
      match shape.layer:
        case records.Conv() as conv:
          height, width, channels = shape.input_shape
          linear[shape.name] = packing.Convolution(
            height,
            width,
            channels,
            conv.features,
            conv.kernel,
            conv.stride,
            conv.groups,
            conv.dilation,
            conv.padding,
          )
          found[shape.name] = shape.output_shape
        case records.Dense():
          (inputs,), (outputs,) = shape.input_shape, shape.output_shape
          linear[shape.name] = packing.Convolution(1, 1, inputs, outputs, 1)
          found[shape.name] = shape.output_shape
        case records.Activation() | records.MaxPool() if shape.name in model.activations:
          form, bits = model.activations[shape.name], widths.values[shape.name]
          for layer in kind.of(shape.name, form, bits, offset):
            activations.append(layer)
            offset += layer.transfers
    (logits,) = records.output_shape(model.layers, model.input_shape)
    comparisons, bits = {}, model.logit_bits or widths.logits
    for output in outputs_of(model)[1:]:
      ring_bits = widths.logits if output == 'checked_class' else None
      comparisons[output] = Comparison(argmax.Tournament(logits, bits, ring_bits), offset)
    return cls(
      model.precision.ring,
      widths,
      model.input_shape,
      linear,
      found,
      waves.names(),
      drawn.found,
      tuple(activations),
      logits,
      comparisons,
    )

  def parts(self) -> dict[str, tuple[ActivationStructure, ...]]:
    """The activation layers of each record, by its name."""
    groups = itertools.groupby(self.activations, lambda layer: layer.owner)
    return {name: tuple(layers) for name, layers in groups}

  def plain_modulus(self, name: str) -> int:
    """2^l of a linear layer, which names its parameters of encryption (`delphi.keys`)."""
    return 1 << self.rings.linear[name]

  def comparison_for(self, output: str) -> Comparison | None:
    """The comparison that an inference for one of `OUTPUTS` ends in; None for the logits.

    Raises:
      ValueError: there is no such output, or these logits do not have it.
    """
    if output not in OUTPUTS:
      raise ValueError(f'output {output!r}, want one of {", ".join(OUTPUTS)}')
    if output == 'logits':
      return None
    if not self.comparisons:
      raise ValueError(f'a class of {self.logits} logits, want 2 to {hashing.MAX_ROWS}')
    if output not in self.comparisons:
      raise ValueError('logits without a range, want one of fewer bits than their ring')
    return self.comparisons[output]

  def transfers(self, output: str) -> int:
    """Label transfers of one image, for an inference that ends in one of `OUTPUTS`."""
    last = self.comparison_for(output)
    return sum(layer.transfers for layer in self.activations) + (last.transfers if last else 0)

  @property
  def choices(self) -> int:
    """Transfers in the other direction, in which the server chooses."""
    return sum(layer.choices for layer in self.activations)

  def products(self) -> dict[tuple[int, int], list[ActivationStructure]]:
    """Activation layers with polynomials, by (modulus, `powers` of a value).

    The layers of one group share their ciphertexts.
    """
    groups: dict[tuple[int, int], list[ActivationStructure]] = {}
    for layer in self.activations:
      if layer.powers:
        groups.setdefault((layer.form.modulus, layer.powers), []).append(layer)
    return groups


def outputs_of(model: PublicModel) -> tuple[str, ...]:
  """Those of `OUTPUTS` that a model can give.

  A single logit has no class, and more than `hashing.MAX_ROWS` cannot be compared. What fills
  its ring cannot be out of range.
  """
  (logits,) = records.output_shape(model.layers, model.input_shape)
  if not 2 <= logits <= hashing.MAX_ROWS:
    return OUTPUTS[:1]
  ranged = model.logit_bits is not None and model.logit_bits < rings.of(model).logits
  return OUTPUTS if ranged else OUTPUTS[:2]
