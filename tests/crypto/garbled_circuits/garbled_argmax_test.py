"""The garbled tournament gives the index, once, and nothing else."""

import numpy as np
import pytest

from safenet_jax.crypto.garbled_circuits import argmax, garbled_argmax, garbling, half_gates
from safenet_jax.crypto.randomness import InsecureSeededRandomness
from tests.crypto.garbled_circuits import argmax_test


class Party:
  """Both parties of tournaments of one size, with fixed coins."""

  def __init__(self, count, bits, source=None, ring=None):
    form = argmax.Tournament(count, bits, ring)
    self.count, self.bits = count, form.entering
    self.size = argmax.stages(form)[0].size
    self.source = source or InsecureSeededRandomness(count)
    self.delta = self.source.words(2) | np.array([1, 0], np.uint64)
    self.garbler = garbled_argmax.Garbler(form, self.source, self.delta)
    self.evaluator = garbled_argmax.Evaluator(form)

  def labels(self, values, *, transferred=True):
    """What the evaluator gets for int64 values [count], and the garbler's encoding."""
    client, server = argmax_test.shares(values, self.bits)
    if transferred:
      zeros = self.source.words((self.bits, self.size, 2))
      garbled, encoding = self.garbler.garble({'client': zeros})
      ours = zeros[:, : self.count] ^ client[..., None] * self.delta
    else:
      garbled, encoding = self.garbler.garble()
      ours = encoding.labels('client', self.packed(client))[:, : self.count]
    theirs = encoding.labels('server', self.packed(server))[:, : self.count]
    return (garbled, ours, theirs, garbled_argmax.decoding(encoding)), encoding

  def packed(self, bits):
    padded = np.zeros((self.bits, self.size), bool)
    padded[:, : self.count] = bits
    return np.packbits(padded, axis=1, bitorder='little')


@pytest.mark.parametrize('transferred', [True, False])
@pytest.mark.parametrize('count, bits', [(2, 1), (3, 5), (7, 9), (10, 24), (65, 6), (100, 22)])
def test_the_evaluator_gets_the_index(count, bits, transferred):
  party, rng = Party(count, bits), np.random.default_rng(bits)
  limit = 1 << bits - 1
  for values in (
    rng.integers(-limit, limit - 1, count, endpoint=True),
    np.full(count, -limit),
    np.arange(count) % limit - limit,
  ):
    parts, _ = party.labels(values, transferred=transferred)
    assert party.evaluator.evaluate(*parts) == values.argmax()


@pytest.mark.parametrize('count, bits, ring', [(2, 1, 2), (3, 5, 9), (10, 23, 28), (65, 6, 36)])
def test_of_checked_words_the_evaluator_gets_the_index_or_that_one_is_out_of_range(
  count, bits, ring
):
  party, limit = Party(count, bits, ring=ring), 1 << bits - 1
  values = np.random.default_rng(bits).integers(-limit, limit, count)
  parts, _ = party.labels(values)
  assert party.evaluator.evaluate(*parts) == values.argmax()
  for place, word in ((0, limit), (count - 1, -limit - 1)):
    strange = values.copy()
    strange[place] = word
    (*parts, decoding), _ = party.labels(strange)
    assert party.evaluator.evaluate(*parts, decoding) is None
    # Whichever word it is and whatever the others are, the index bits are those of 0.
    parts[0].used = False
    trusting = decoding ^ np.append(np.zeros(len(decoding) - 1, np.uint8), np.uint8(1))
    assert party.evaluator.evaluate(*parts, trusting) == 0


def test_only_what_is_not_padding_is_sent():
  party = Party(10, 24)
  (garbled, *_, decoding), _ = party.labels(np.arange(10))
  assert garbled.tables.nbytes == 32 * argmax.and_count(argmax.Tournament(10, 24))
  assert decoding.shape == (4,) and decoding.max() <= 1


def test_tables_and_labels_are_used_once():
  party = Party(3, 5)
  parts, encoding = party.labels(np.arange(3))
  party.evaluator.evaluate(*parts)
  with pytest.raises(ValueError, match='evaluated before'):
    party.evaluator.evaluate(*parts)
  with pytest.raises(ValueError, match='a second label of a wire'):
    encoding.labels('server', party.packed(np.zeros((5, 3), bool)))


def test_labels_of_another_tournament_are_found():
  party = Party(5, 8)
  (garbled, ours, theirs, decoding), _ = party.labels(np.arange(5))
  (_, *others), _ = party.labels(np.arange(5))
  for bad in ((others[0], theirs), (ours, others[1]), (ours[:, ::-1].copy(), theirs)):
    garbled.used = False
    with pytest.raises(ValueError, match='do not open'):
      party.evaluator.evaluate(garbled, *bad, decoding)
  garbled.used = False
  garbled.tables ^= np.uint64(2)  # of the last AND alone, colours may leave both rows unread
  with pytest.raises(ValueError, match='do not open'):
    party.evaluator.evaluate(garbled, ours, theirs, decoding)


def test_shapes_and_indices_that_do_not_exist_are_refused():
  party = Party(5, 8)
  (garbled, ours, theirs, decoding), _ = party.labels(np.array([0, 0, 0, 0, 9]))
  with pytest.raises(ValueError, match='labels .* of 5 words'):
    party.evaluator.evaluate(garbled, ours[:, :4], theirs, decoding)
  with pytest.raises(ValueError, match='want'):
    party.evaluator.evaluate(garbled, ours, theirs, decoding[:2])
  with pytest.raises(ValueError, match='index 5 of 5'):
    party.evaluator.evaluate(garbled, ours, theirs, decoding ^ np.array([1, 0, 0], np.uint8))
  with pytest.raises(ValueError, match='labels uint64'):
    party.garbler.garble({'client': ours})


@pytest.fixture
def seen(monkeypatch):
  """Output labels of all stages that the evaluator runs: (stage, [outputs, instances, 2])."""
  found, run = [], garbled_argmax._Tiles.run

  def record(self, stage, *args):
    outputs = run(self, stage, *args)
    if isinstance(self._blocks[0]._parts[0][0], half_gates.EvaluatorTile):
      found.append((stage.number, outputs[:, : stage.instances].copy()))
    return outputs

  monkeypatch.setattr(garbled_argmax._Tiles, 'run', record)
  return found


def deviations(colours):
  """How far the share of colour 1 is from a half."""
  return abs(colours.mean() - 0.5) * 2 * np.sqrt(colours.size)


def colours(seen, party, values, times=24):
  """Colours that the evaluator sees of all wires, and of the lowest bits of the sums."""
  for _ in range(times):
    parts, _ = party.labels(values)
    party.evaluator.evaluate(*parts)
  low = [labels[0, :, 0] for stage, labels in seen if stage == 0]
  everything = [labels[..., 0].reshape(-1) for _, labels in seen]
  return [np.concatenate(found) & np.uint64(1) for found in (everything, low)]


@pytest.mark.parametrize('values', [np.zeros(10, np.int64), np.full(10, -1)])
def test_colours_of_sums_and_winners_say_nothing(seen, values):
  everything, low = colours(seen, Party(10, 24), values)
  assert deviations(everything) < 6 and deviations(low) < 6


class InsecureColourless(InsecureSeededRandomness):
  """Labels of value 0 that all have colour 0, where they are transferred."""

  def words(self, shape):
    return super().words(shape) & ~np.uint64(1)


def test_without_random_colours_they_tell_the_values(seen, monkeypatch):
  """So the test above fails without its defence: the lowest bits are XORs alone."""
  rows = garbling.FreshLabels.rows
  monkeypatch.setattr(garbling.FreshLabels, 'rows', lambda self: rows(self) & ~np.uint64(1))
  party = Party(10, 24, InsecureColourless(0))
  _, low = colours(seen, party, np.full(10, -1))
  assert deviations(low) > 6 and low.all()


def test_the_evaluator_has_one_label_of_every_wire(seen):
  party = Party(10, 24)
  parts, encoding = party.labels(np.arange(10))
  party.evaluator.evaluate(*parts)
  garbled, ours, theirs, _ = parts
  rows = np.concatenate(
    [
      part.reshape(-1, 2)
      for part in (*(labels for _, labels in seen), ours, theirs, garbled.tables)
    ]
  )
  held, delta = {row.tobytes() for row in rows}, party.delta
  assert len(held) > 2 * 240 + 2 * argmax.and_count(argmax.Tournament(10, 24))
  assert not any((row ^ delta).tobytes() in held for row in rows)
  assert delta.tobytes() not in held
  # With the other label of one wire, there would be a pair.
  assert (ours[0, 0] ^ delta).tobytes() not in held


def test_every_gate_of_every_stage_and_tournament_has_its_own_key(monkeypatch):
  """Labels of one stage are hashed in the next again: one key would do so under equal tweaks."""
  keys, encryptor = [], half_gates.encryptor

  def record(key):
    keys.append(key)
    return encryptor(key)

  monkeypatch.setattr(half_gates, 'encryptor', record)
  party = Party(10, 24)
  gates = sum(stage.circuit.and_count for stage in argmax.stages(argmax.Tournament(10, 24)))
  tournaments = [party.labels(np.arange(10))[0] for _ in range(2)]
  garbled = list(keys)
  assert len(garbled) == len(set(garbled)) == 2 * gates
  for parts in tournaments:
    party.evaluator.evaluate(*parts)
  assert keys[len(garbled) :] == garbled
