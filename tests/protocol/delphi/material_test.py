"""What is kept of a preparation serves once, and only what it was made for."""

import itertools

import numpy as np
import pytest

from safenet_jax.protocol.delphi import material
from safenet_jax.protocol.gazelle import correlations
from safenet_jax.protocol.layers.structure import OUTPUTS

NOTHING = np.empty(0, np.uint64)
KEPT = [
  lambda output: material.ClientMaterial(b'', NOTHING, NOTHING, {}, output=output),
  lambda output: material.ServerMaterial(b'', {}, {}, output=output),
  lambda output: correlations.ClientMaterial(b'', NOTHING, NOTHING, {}, {}, output=output),
  lambda output: correlations.ServerMaterial(b'', {}, {}, {}, output=output),
]


@pytest.mark.parametrize('make', KEPT)
@pytest.mark.parametrize('own, other', list(itertools.permutations(OUTPUTS, 2)))
def test_a_preparation_serves_its_own_output_once(make, own, other):
  kept = make(own)
  with pytest.raises(ValueError, match=f'a preparation for {own}, want one for {other}'):
    kept.spend(other)
  kept.spend(own)  # the refusal has not used it up
  with pytest.raises(ValueError, match='used before'):
    kept.spend(own)
