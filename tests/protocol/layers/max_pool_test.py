"""Max pools in garbled circuits: their arithmetic, their cost, and what the client sees."""

import dataclasses
import itertools

import numpy as np
import pytest

from safenet_jax.crypto import randomness, ring
from safenet_jax.crypto.garbled_circuits import garbling, wires
from safenet_jax.models import layers
from safenet_jax.models import network as networks
from safenet_jax.protocol.layers import blocks, max_pool
from safenet_jax.protocol.simulation import dealer, simulator
from safenet_jax.transport import ledger as ledgers
from tests.support import models, plain_circuits, reference, shares
from tests.support import networks as small

POOL = layers.MaxPool(2)


def form(sign_bits, dropped, pool=POOL, map_shape=(4, 4), channels=3):
  return dataclasses.replace(
    models.activation(channels, 0, 0, map_shape, pool),
    sign_bits=sign_bits,
    select_bits=sign_bits - dropped + 1,
    input_fraction=7 + dropped,
    output_fraction=7,
  )


def in_plain(form, client, server, mask):
  """The circuit's output words for words [n^2, count] and masks [count]."""
  width = form.sign_bits - form.dropped
  count = mask.size
  size = -(-count // 64) * 64
  packed = {
    'client': blocks.pack(client, width, size),
    'server': blocks.pack(server, width, size),
    'mask': blocks.pack(mask[None], form.select_bits, size),
  }
  bits = {k: np.unpackbits(v, axis=1, bitorder='little') for k, v in packed.items()}
  outputs = plain_circuits.evaluate(max_pool.circuit(form), bits)
  return wires.unpack(np.packbits(outputs, axis=1, bitorder='little'))[:count]


def test_the_circuit_adds_a_mask_to_the_largest_positive_sum():
  """All values of a window of two by two in a ring of 8, under random shares and masks."""
  small_form = form(3, 0)
  values = np.array(list(itertools.product(range(-4, 4), repeat=4))).T
  rng = np.random.default_rng(0)
  client = rng.integers(0, 8, values.shape).astype(np.uint64)
  server = ring.reduce(values.astype(np.uint64) - client, 3)
  mask = rng.integers(0, 16, values.shape[1]).astype(np.uint64)
  found = in_plain(small_form, client, server, mask)
  expected = (np.maximum(values.max(0), 0) + mask.astype(np.int64)) % 16
  np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize('window, width', [(2, 17), (2, 20), (3, 17), (4, 9)])
def test_ands_are_what_the_circuit_says(window, width):
  pool = layers.MaxPool(window)
  found = max_pool.circuit(form(width + 8, 8, pool, (2 * window, window))).and_count
  n = window**2
  assert found == n * (width - 1) + (n - 1) * 2 * width + (width - 1) + width
  if window == 2:
    assert found == 12 * width - 5


@pytest.mark.parametrize('stride, side, ands, words', [(2, 17, 20.0625, 81), (1, 18, 14.25, 36)])
def test_overlapping_windows_share_sums_and_maxima(stride, side, ands, words):
  """The table of `pool_tiles`, for 16 windows of three by three."""
  counts = [
    max_pool.circuit(form(width, 0, layers.MaxPool(3, stride), (side, side))).and_count
    for width in (13, 14)
  ]
  assert counts[1] - counts[0] == 16 * ands
  layer = form(13, 0, layers.MaxPool(3, stride), (side, side))
  assert (max_pool.outputs(layer), max_pool.words(layer)) == (16, words)
  # A window alone takes 27 w - 10.
  alone = max_pool.circuit(form(13, 0, layers.MaxPool(3, 2), (3, 3)))
  assert alone.and_count == 27 * 13 - 10 and counts[0] < 16 * alone.and_count


def run(form, values, seed=0):
  """Shares of values [B, H, W, C] through dealer, garbling and evaluation: v, rho, ledger."""
  source = randomness.InsecureSeededRandomness(seed)
  ledger = ledgers.Ledger()
  client = source.ring(56, values.shape)
  server = ring.reduce(ring.from_signed(values, 56) - client, 56)
  clients, servers = dealer.InsecureDealer(source, ledger).max_pool('a', client, form)
  words = max_pool.windows(server, form, server=True)
  shares = []
  for block, ours, theirs in zip(max_pool.cut(form, len(values)), clients, servers, strict=True):
    labels, rho = max_pool.online_server(theirs, words[:, block.first : block.end], form)
    evaluator = garbling.Evaluator(max_pool.circuit(form), block.size)
    shares.append((max_pool.online_client(ours, evaluator, labels, form, block.count), rho))
  v, rho = (max_pool.joined(part, form) for part in zip(*shares))
  return v, rho, ledger


@pytest.mark.parametrize('rectified', [True, False])
@pytest.mark.parametrize(
  'pool, map_shape',
  [
    (layers.MaxPool(2), (4, 4)),
    (layers.MaxPool(3), (6, 3)),
    (layers.MaxPool(3, 2, ((1, 1), (1, 1))), (9, 4)),
    (layers.MaxPool(3, 1, ((2, 0), (0, 1))), (6, 5)),
    (layers.MaxPool(2, 3), (7, 6)),
  ],
)
def test_shares_add_up_to_the_largest_value_within_a_unit(pool, map_shape, rectified, monkeypatch):
  # Several blocks, the last one not full.
  monkeypatch.setattr(max_pool, 'MAX_BLOCK', 128)
  layer = dataclasses.replace(form(20, 8, pool, map_shape), rectified=rectified)
  limit = (1 << 19) - (1 << 8)
  values = np.random.default_rng(1).integers(-limit, limit, (20, *map_shape, 3))
  values[:4] //= 512  # about the unit of the output
  values[4] = limit - 1
  v, rho, _ = run(layer, values)
  found = ring.reconstruct(v, rho, layer.select_bits)
  values = np.maximum(values, 0) if rectified else values
  expected = np.stack([reference.largest(x, pool) for x in values]) / 256
  error = found - expected
  assert np.abs(error).max() <= 1
  # Each value's rounding is unbiased; the largest of several is a little above.
  assert -0.05 < error[5:].mean() < 0.5


def test_what_the_client_decodes_is_uniform_whatever_the_values_are():
  layer = form(10, 4, map_shape=(64, 64), channels=8)
  for value in (-100, 0, 300):
    v, rho, _ = run(layer, np.full((2, 64, 64, 8), value), seed=value + 100)
    assert v.size == 2 * 32 * 32 * 8
    for share in (v, rho):
      counts = np.bincount(share.reshape(-1).astype(np.int64), minlength=128)
      assert counts.size == 128
      expected = v.size / 128
      # 127 degrees of freedom, deviation 16.
      assert ((counts - expected) ** 2 / expected).sum() < 127 + 5 * 16


def test_a_mask_is_drawn_for_every_garbling():
  layer = form(10, 4)
  values = np.zeros((2, 4, 4, 3), np.int64)
  assert not np.array_equal(run(layer, values, 1)[0], run(layer, values, 2)[0])
  source = randomness.InsecureSeededRandomness(0)
  deal = dealer.InsecureDealer(source, ledgers.Ledger())
  share = source.ring(56, values.shape)
  masks = [deal.max_pool('a', share, layer)[1][0].mask for _ in range(2)]
  assert not np.array_equal(*masks)


def test_messages_cost_what_the_ledger_says():
  layer = form(24, 8, map_shape=(16, 16), channels=1)
  _, _, ledger = run(layer, np.zeros((1, 16, 16, 1), np.int64))
  rows = {r['primitive']: r['bytes'] for r in ledger.record()['rows']}
  windows, width = 64, 16
  # Seed and check go with them.
  assert rows['garbled tables'] == 32 * (12 * width - 5) * windows + 16 + 32
  assert rows['mask labels'] == 16 * (width + 1) * windows
  assert rows['decoding'] == (width + 1) * windows // 8
  assert rows['dealt labels'] == 16 * 4 * width * windows


def test_a_network_with_max_pools_equals_the_integer_reference():
  net, variables = small.trained(small.VGG)
  count = len(networks.activation_channels(net))
  assert count == 4
  approximation = small.planned(net, variables, [8, 10, 10, 10], [0, 2, 0, 3])
  model = small.quantised(net, variables, approximation)
  assert [f.maximum for f in model.public.activations.values()] == [True, False, True, False]
  assert model.public.absorbed == {'max_pool0', 'max_pool1'}
  wanted = np.asarray(small.floating(net)(variables, small.normal(small.IMAGES), approximation))
  fixed = model.logits(small.IMAGES)
  assert np.abs(fixed - wanted).max() < 0.05 * np.abs(wanted).max()

  ledger = ledgers.Ledger()
  images = small.IMAGES[:2]
  with shares.recorded() as held:
    logits = simulator.integers(
      model, images, randomness.InsecureSeededRandomness(1), ledger=ledger
    )
  values = held.values(model)
  for n in range(len(images)):
    x = np.round(small.normal(images[n]) * 2.0**model.public.input_fraction).astype(np.int64)
    follower = reference.Follower(model, values, n)
    np.testing.assert_array_equal(layers.run(model.public.layers, follower, x), logits[n])
  # One round trip for an activation with a max pool, as for any other.
  assert ledger.record()['phases']['online']['rounds'] == count + 1
