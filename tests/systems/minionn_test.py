import functools
import pathlib

import numpy as np
import pytest

from safenet_jax import data
from safenet_jax.crypto.randomness import SystemRandomness
from safenet_jax.models import layers
from safenet_jax.protocol.service import bundle
from safenet_jax.systems import minionn
from tests.support import peers

KEPT = pathlib.Path(__file__).parents[2] / 'experiments' / 'results' / 'systems'


def test_private_logits_of_real_images_are_those_of_plaintext_integers():
  model = bundle.load(KEPT / 'minionn.safenet')
  images = np.asarray(data.load('fashion_mnist').test.images[:2])
  randomness = SystemRandomness()
  with peers.channels(timeout=300) as (ours, theirs):
    found, _ = peers.both(
      functools.partial(minionn.client, ours, model.public, images, randomness),
      functools.partial(minionn.server, theirs, model, len(images), randomness),
    )
    record = ours.ledger.record()
  wanted = model.logits(images)
  assert np.abs(found - wanted).max() < 0.1 < np.ptp(wanted)
  garbled = [row['phase'] for row in record['rows'] if row['primitive'] == 'garbling']
  assert garbled and set(garbled) == {'online'}


def test_the_network_is_the_papers():
  """Figure 12: 24 x 24 and 8 x 8 maps of 16, pooled; 100 units."""
  shapes = [shape.output_shape for shape in layers.shapes(minionn.LAYERS, minionn.SHAPE)]
  assert [s for s in shapes if len(s) == 3][::3] == [(24, 24, 16), (8, 8, 16)]
  assert shapes[-3:] == [(100,), (100,), (10,)]


def test_other_images_are_refused_before_anything_is_sent():
  model = bundle.load(KEPT / 'minionn.safenet')
  with pytest.raises(ValueError, match='images'):
    minionn.client(None, model.public, np.zeros((1, 32, 32, 3), np.uint8), SystemRandomness())
