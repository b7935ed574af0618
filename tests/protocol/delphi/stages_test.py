"""An offline phase in several stages prepares what one stage does, under tags of their own."""

import numpy as np
import pytest

from safenet_jax.protocol.delphi import message_shapes
from safenet_jax.protocol.layers.structure import Structure
from tests.support import models, parties

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 2), np.uint8)


@pytest.fixture
def small_stages(monkeypatch):
  monkeypatch.setattr(message_shapes, '_STAGE_TRANSFERS', 1)


def test_a_stage_has_the_layers_that_fit_and_at_least_one(monkeypatch):
  structure = Structure.of(models.calibrated().public)
  sizes = [layer.transfers + layer.choices for layer in structure.activations]
  (whole,) = message_shapes.stages(structure, 'class')
  assert whole.structure == structure and whole.output == 'class'
  monkeypatch.setattr(message_shapes, '_STAGE_TRANSFERS', sizes[0])
  first, *_, last = message_shapes.stages(structure, 'class')
  assert [layer.name for layer in first.structure.activations] == ['activation0']
  assert first.output == 'logits' and last.output == 'class'
  # The last stage's transfers are its layers', and then those of the logits.
  assert last.structure.comparison_for('class').offset == last.structure.transfers('logits')
  monkeypatch.setattr(message_shapes, '_STAGE_TRANSFERS', 1)
  found = message_shapes.stages(structure, 'logits')
  assert [a.name for s in found for a in s.structure.activations] == [
    layer.name for layer in structure.activations
  ]
  assert all(s.structure.activations[0].offset == 0 for s in found)


def test_tags_of_stages_differ_and_the_first_has_that_of_the_image():
  tag = message_shapes.Tag(b'nonce', 3)
  assert tag.of_stage(0)('labels') == tag('labels')
  assert len({tag.of_stage(stage)('labels') for stage in range(20)}) == 20


@pytest.mark.parametrize('output', ['logits', 'class'])
@pytest.mark.parametrize('mode', ['delphi', 'gazelle', 'minionn', 'ot'])
def test_several_stages_infer_what_the_integer_model_does(mode, output, small_stages):
  model = models.calibrated()
  run = parties.run(model, IMAGES, mode=mode, output=output)
  expected = model.run(IMAGES)
  if output == 'class':
    assert run.logits.tolist() == expected.argmax(-1).tolist()
  else:
    assert np.abs(run.logits - expected).max() / 2.0**model.public.output_fraction < 0.05
  assert all(size == foreseen for size, foreseen in run.sizes)


def test_replies_beyond_what_may_be_unread_are_read_while_the_client_encrypts(monkeypatch):
  monkeypatch.setattr(message_shapes, 'UNREAD_BYTES', 1)
  model = models.calibrated()
  run = parties.run(model, IMAGES)
  assert run.logits.argmax(-1).tolist() == model.run(IMAGES).argmax(-1).tolist()
  # One after another: what every linear layer takes is a round trip.
  assert run.ledgers[0].record()['phases']['offline']['rounds'] > 5
