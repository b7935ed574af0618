"""Powers of two by which channels are scaled, so that those of a layer need the same formats.

A layer has one format for all of its channels. Where a few of them are a hundred times as large
as the others, these would keep hardly any bits. A positive factor of a channel passes ReLU,
pools and sums. So the rows of kernels that make the channel are multiplied by it, and those that
read it are divided, which leaves the network's function as it is (Nagel et al. 2019, arXiv
1906.04721, section 4.1). Powers of two do so exactly, also in floating point, and a network
whose channels are even already stays as it is. Nothing of the factors is public.

The factors make the errors of rounding small, by the values that calibration images have. Let x be
what a layer l reads, y what it makes, and s the factors of their channels. A weight has an error of
variance d^2, so that channel o of y has one of d^2 P_l / s_o^2, where P_l is the sum of s_i^2 x_i^2
over all i that the kernel reads. An activation adds e^2 / s_o^2. How much of it the next layers
feel is the sum of their squared weights that read o, each divided by the mean square of what it
adds to. The sum of all errors is convex in log s, and is made smaller factor by factor.
"""

from collections.abc import Mapping, Sequence
import dataclasses

import numpy as np

from safenet_jax.fixed_point.folding import Split
from safenet_jax.fixed_point.statistics import Statistics
from safenet_jax.models import layers as records

# How often every factor is chosen anew. The last rounds of CNN-7's and ResNet's change none.
_ROUNDS = 8
# Factors nearer to one than this power of two are one: they would gain no accuracy.
_LEAST = 2
# Up to this, values of a layer may become larger than its largest one; more would take bits.
_USUAL = 8.0
_SMALL = 1e-30
