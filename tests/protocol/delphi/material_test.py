"""What is kept of a preparation serves once, and only what it was made for."""

import numpy as np
import pytest

from safenet_jax.protocol.delphi import material
from safenet_jax.protocol.gazelle import correlations

NOTHING = np.empty(0, np.uint64)
KEPT = [
  lambda argmax: material.ClientMaterial(b'', NOTHING, NOTHING, {}, argmax=argmax),
  lambda argmax: material.ServerMaterial(b'', {}, {}, argmax=argmax),
  lambda argmax: correlations.ClientMaterial(b'', NOTHING, NOTHING, {}, {}, argmax=argmax),
  lambda argmax: correlations.ServerMaterial(b'', {}, {}, {}, argmax=argmax),
]


@pytest.mark.parametrize('make', KEPT)
@pytest.mark.parametrize('argmax, own, other', [(None, 'logits', 'class'), (0, 'class', 'logits')])
def test_a_preparation_serves_its_own_output_once(make, argmax, own, other):
  kept = make(argmax)
  with pytest.raises(ValueError, match=f'a preparation for {own}, want one for {other}'):
    kept.spend(other)
  kept.spend(own)  # the refusal has not used it up
  with pytest.raises(ValueError, match='used before'):
    kept.spend(own)
