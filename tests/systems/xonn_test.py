import functools

import numpy as np
import pytest

from safenet_jax import data
from safenet_jax.crypto.randomness import InsecureSeededRandomness, SystemRandomness
from safenet_jax.systems import bit_garbling, bit_network, xonn
from safenet_jax.systems.bit_network import Pool, Sums, Window
from safenet_jax.transport.frames import ProtocolError
from tests.support import peers
from tests.systems import bit_networks


def run(net, images, streamed=False, randomness=(None, None)):
  """The client's logits and its ledger."""
  ours, theirs = (one or SystemRandomness() for one in randomness)
  with peers.channels(timeout=60) as (client, server):
    found = peers.both(
      functools.partial(xonn.client, client, net.layers, images, ours, streamed),
      functools.partial(xonn.server, server, net, len(images), theirs, streamed),
    )
    for error in found:
      if isinstance(error, BaseException):
        raise error
    return found[0], client.ledger.record()


@pytest.mark.parametrize('streamed', [False, True])
@pytest.mark.parametrize('sparse', [False, True])
def test_private_logits_are_those_of_plaintext_integers_in_one_round_online(streamed, sparse):
  net, images = bit_networks.network(sparse=sparse), bit_networks.images(3)
  found, record = run(net, images, streamed)
  np.testing.assert_array_equal(found, net.run(images))
  assert record['phases']['online']['rounds'] == 1
  tables = [row for row in record['rows'] if row['primitive'] == 'tables' and row['bytes']]
  assert [row['phase'] for row in tables] == ['online' if streamed else 'offline']
  ands = bit_garbling.ands(net.layers, xonn.first(net.layers, 3).bits, 3)
  # 32 bytes an AND, and little besides.
  assert 32 * ands < tables[0]['bytes'] < 32 * ands + 200 * tables[0]['messages'] + 1000


@pytest.mark.parametrize('sparse', [False, True])
def test_real_images_are_classified_as_in_plaintext(sparse):
  images = data.load('fashion_mnist').test.images[:2]
  random = np.random.default_rng(0)
  positions = np.sort([random.permutation(784)[:100] for _ in range(8)]) if sparse else None
  layers = Sums(Window(28, 28, 1), 8, positions), Sums(Window(1, 1, 8), 10)
  net = bit_networks.with_secrets(layers, random)
  found, _ = run(net, images)
  np.testing.assert_array_equal(found, net.run(images))


def test_thresholds_that_nothing_or_everything_reaches():
  net, images = bit_networks.network(), bit_networks.images(2)
  first, second, *rest = net.secrets
  net.secrets[0].thresholds[:] = [-128 * 18, 128 * 18 + 1, 0, 1, -1]
  net.secrets[1].thresholds[:] = [0, 46, 45, 1, 23, 0]
  found, _ = run(net, images)
  np.testing.assert_array_equal(found, net.run(images))


def test_gates_are_those_counted_by_hand():
  layers = Sums(Window(4, 4, 1, 3, 1, 1), 2), Pool(4, 4, 2), Sums(Window(2, 2, 2), 3)
  # Sums of 9 pixels within 2 * 128 * 9 + 1 take a ring of 13 bits: 12 ANDs for each sign.
  assert xonn.first(layers, 1).bits == 13
  signs, maxima = 12 * 32, 3 * 8
  # 8 bits are counted in 7 ANDs; adding to a word of 5 bits takes 4.
  assert bit_garbling.ands(layers, 13) == signs + maxima + 3 * (7 + 4)
  hidden = (*layers[:2], Sums(Window(2, 2, 2), 5), Sums(Window(1, 1, 5), 2))
  # Of 8 bits a count is compared with 0..9, in 4 bits; 5 bits are counted in 3 ANDs, 4 bits added.
  assert bit_garbling.ands(hidden, 13) == signs + maxima + 5 * (7 + 4) + 2 * (3 + 3)


def test_what_the_server_sees_of_two_images_is_the_same_but_for_masks():
  """With the client's randomness repeated, only e and d tell images apart, by what masks them."""
  net = bit_networks.network()
  sizes = xonn.first(net.layers, 1)
  seen = []
  for seed in range(2):
    with peers.channels(timeout=60) as (client, server):
      receive, found = server.receive, {}

      def keeping(tag, expected=(), receive=receive, found=found):
        found[tag] = receive(tag, expected)
        return found[tag]

      server.receive = keeping
      peers.both(
        functools.partial(
          xonn.client, client, net.layers, bit_networks.images(1, seed), InsecureSeededRandomness(7)
        ),
        functools.partial(xonn.server, server, net, 1, InsecureSeededRandomness(8)),
      )
    seen.append(found)
  one, other = seen
  same = [tag for tag in one if all(np.array_equal(a, b) for a, b in zip(one[tag], other[tag]))]
  assert sorted(set(one) - set(same)) == ['inputs']
  e = sizes.words[0].unpack(one['inputs'][0])
  assert e.shape == (sizes.neurons,) and len(np.unique(e >> np.uint64(sizes.bits - 3))) == 8


def test_shares_of_the_first_layer_are_uniform_and_sum_to_its_sums(monkeypatch):
  net, images = bit_networks.network(), bit_networks.images(2)
  sizes, shares, kept = xonn.first(net.layers, 2), [], xonn._bits

  def keeping(words, width):
    shares.append(words)
    return kept(words, width)

  monkeypatch.setattr(xonn, '_bits', keeping)
  run(net, images)
  assert len(shares) == 2
  for share in shares:
    assert len(np.unique(share >> np.uint64(sizes.bits - 3))) == 8
  total = (shares[0] + shares[1]) & sizes.mask
  first, secret = net.layers[0], net.secrets[0]
  sums = bit_network.sums(first, secret.signs, bit_network.centred(first, images))
  wanted = (sums - secret.thresholds[:, None, None]).reshape(-1) % (1 << sizes.bits)
  np.testing.assert_array_equal(total, wanted.astype(np.uint64))


def test_another_image_than_the_network_reads_is_one_line():
  with pytest.raises(ValueError, match='want uint8'):
    xonn.client(
      None, bit_networks.network().layers, np.zeros((1, 8, 8, 3), np.uint8), SystemRandomness()
    )


def test_more_windows_than_a_block_holds_are_refused():
  layers = Sums(Window(64, 64, 1, 3, 1, 1), 1), Sums(Window(64, 64, 1, 3, 1, 1), 1)
  with pytest.raises(ValueError, match='5 images of 4096 windows, want fewer images at once'):
    bit_garbling.ands((*layers, Sums(Window(64, 64, 1), 2)), 13, 5)


def test_tables_of_another_network_end_the_session():
  net = bit_networks.network()
  layers = (*net.layers[:-1], Sums(Window(2, 2, 3), 5))
  with peers.channels(timeout=10) as (client, server):
    found = peers.both(
      functools.partial(xonn.client, client, layers, bit_networks.images(1), SystemRandomness()),
      functools.partial(xonn.server, server, net, 1, SystemRandomness()),
    )
  assert isinstance(found[0], ProtocolError) and "'tables' has" in str(found[0])
