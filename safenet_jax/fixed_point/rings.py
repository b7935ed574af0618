"""How wide the ring of each linear layer is: l, for the integers modulo 2^l.

Local truncation needs a wide ring, because it fails with probability |y| / 2^l. So what becomes
a polynomial is computed in the widest ring, that of the model's precision. Everything else needs
no more bits than its readers take: a ReLU those of its sign test and of its selection, another
linear layer those of its own ring, and the client those of the logits. A narrow ring takes
smaller ciphertexts, and less time.

Shares modulo 2^l are shares modulo every smaller power of two. So a value that is read in
several rings has shares in the widest of them, and every reader drops what is too much.
"""

from collections.abc import Callable
from typing import NamedTuple

from safenet_jax.fixed_point.model import PublicModel
from safenet_jax.models import layers as records

# What there are parameters of homomorphic encryption for (`bfv.ring_parameters`), beside the
# widest ring. Every further one would take a key and a context more.
NARROW = 28, 36


class Rings(NamedTuple):
  """Widths in bits, by name.

  linear: l of each linear layer.
  values: of the shares of the output of each activation layer and max pool alone, and of the
    image, 'input'.
  logits: of the shares of the logits.
  """

  linear: dict[str, int]
  values: dict[str, int]
  logits: int


class _Sources:
  """Walks through a network. A value is the set of all layers whose outputs are in it.

  These are linear layers, activations, max pools alone, and 'input'.

  read: for each of them what it reads, in the network's order. A `Truncate` is one of them.
  """

  def __init__(self, absorbed: frozenset[str]):
    self.absorbed = absorbed
    self.read: dict[str, frozenset[str]] = {}

  def conv(self, name, layer, sources):
    del layer
    self.read[name] = sources
    return frozenset([name])

  dense = activation = truncate = conv

  def average_pool(self, name, layer, sources):
    del name, layer
    return sources

  flatten = gather = pad_shortcut = average_pool

  def max_pool(self, name, layer, sources):
    return sources if name in self.absorbed else self.conv(name, layer, sources)

  def constant(self, name, layer, sources):
    del name, layer, sources
    return frozenset()

  def add(self, branch, shortcut):
    return branch | shortcut

  def concat(self, values):
    return frozenset().union(*values)


def of(model: PublicModel) -> Rings:
  """The rings of a model.

  Raises:
    ValueError: `model.rings` names no linear layer, or a ring that is not one of `NARROW`, or one
      that is too narrow for what reads the layer.
  """
  widest = model.precision.ring

  def given(name: str, need: int) -> int:
    bits = model.rings.get(name, widest)
    if not need <= bits <= widest or bits not in (*NARROW, widest):
      raise ValueError(f'{name} in a ring of {bits} bits, want at least {need}')
    return bits

  found = _resolve(model, given)
  if odd := sorted(model.rings.keys() - found.linear.keys()):
    raise ValueError(f'rings of layers that do not exist: {", ".join(odd)[:100]}')
  return found


def narrowest(model: PublicModel, fits: Callable[[str, int], bool]) -> dict[str, int]:
  """The narrowest ring of each linear layer that needs less than the widest.

  Args:
    model: its `rings` are not looked at.
    fits: of a linear layer by name, whether its weights can be served in a ring of so many bits.
  """
  widest = model.precision.ring

  def choose(name: str, need: int) -> int:
    return next((bits for bits in NARROW if need <= bits < widest and fits(name, bits)), widest)

  found = _resolve(model, choose).linear
  return {name: bits for name, bits in found.items() if bits < widest}


def _resolve(model: PublicModel, choose: Callable[[str, int], int]) -> Rings:
  """The rings, where `choose` gives that of a linear layer whose readers need so many bits."""
  walk, widest = _Sources(model.absorbed), model.precision.ring
  ends = records.run(model.layers, walk, frozenset(['input']))
  found = dict.fromkeys(['input', *walk.read], 1)

  def ask(sources: frozenset[str], bits: int) -> None:
    for name in sources:
      found[name] = max(found[name], bits)

  ask(ends, model.logit_bits or widest)
  # Whoever reads a layer comes after it.
  for name, sources in reversed(walk.read.items()):
    form = model.activations.get(name)
    if name.startswith('truncate'):
      ask(sources, widest)
    elif form is None:
      found[name] = choose(name, found[name])
      ask(sources, found[name])
    else:
      for rescale in form.rescales(widest):
        # The truncation sends at least one bit of what is left of the carry.
        ask(frozenset([name]), widest - rescale.wrap_bits + 1)
      # The difference of two values, which maxima compare, takes a bit more.
      need = max(form.sign_bits + form.maximum, form.select_bits)
      ask(sources, widest if form.polynomial else need)
  logits = min((found[name] for name in ends), default=widest)
  values = {name: found.pop(name) for name in ('input', *model.activations)}
  linear = {name: bits for name, bits in found.items() if not name.startswith('truncate')}
  return Rings(linear, values, logits)
