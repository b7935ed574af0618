"""Soteria (Aggarwal et al., arXiv 2007.12934): ternary weights in garbled circuits.

Weights are -1, 0 and 1. A weight 0 costs no gate: its place is left out of the count, so that half
of the weights take about half of the ANDs. The parties are those of `xonn`; what differs is the
network, in which `Sums.positions` names the places that each neuron reads.

What is public: which weights are 0. The evaluator has to know which labels to feed into a neuron's
circuit. What is hidden: the sign of every other weight, and the thresholds. (To hide the places too
would take a label for every place in every neuron, as in `xonn`, and more gates than zeros save.)
Here every neuron of a layer has the same number of zeros, so that all are instances of one circuit.
In XONN nothing of a weight is public.

The paper also searches architectures by their cost; that is not done here.
"""

from collections.abc import Sequence
from typing import NamedTuple

from safenet_jax.systems import bit_garbling, xonn
from safenet_jax.systems.bit_network import Pool, Sums

# The share of weights that are not 0, in the networks that `experiments.systems` trains.
DENSITY = 0.5


class Gates(NamedTuple):
  """AND gates of one inference, and of the same architecture without zeros."""

  ternary: int
  binary: int


def gates(layers: Sequence[Sums | Pool]) -> Gates:
  """Both counts of a network's layers."""
  full = [layer if isinstance(layer, Pool) else layer._replace(positions=None) for layer in layers]
  return Gates(*(bit_garbling.ands(some, xonn.first(some, 1).bits) for some in (layers, full)))
