import numpy as np
import pytest

from safenet_jax.systems import bit_network
from safenet_jax.systems.bit_network import BitNetwork, Pool, Sums, Window
from tests.systems import bit_networks


def weights_of(layer, secret):
  """[outputs, k] in -1, 0 and 1."""
  found = np.zeros((layer.outputs, layer.window.patches.shape[1]), np.int64)
  for row, (signs, output) in enumerate(zip(secret.signs, found)):
    places = range(layer.inputs) if layer.positions is None else layer.positions[row]
    output[list(places)] = 2 * signs.astype(int) - 1
  return found


def by_hand(net, image):
  """Layer after layer as products of numbers -1 and 1, with loops over places."""
  value = image.astype(int).transpose(2, 0, 1) - 128
  border = 0
  for number, (layer, secret) in enumerate(zip(net.layers, net.secrets)):
    channels, height, width = value.shape
    if isinstance(layer, Pool):
      value = value.reshape(channels, height // 2, 2, width // 2, 2).max(axis=(2, 4))
      continue
    window, weights = layer.window, weights_of(layer, secret)
    kernel, before = window.kernel or height, window.before
    padded = np.full((channels, height + 2 * kernel, width + 2 * kernel), border)
    padded[:, before : before + height, before : before + width] = value
    rows, columns = window.side
    total = np.zeros((layer.outputs, rows, columns), int)
    for r in range(rows):
      for c in range(columns):
        top, left = window.stride * r, window.stride * c
        patch = padded[:, top : top + kernel, left : left + kernel].reshape(-1)
        total[:, r, c] = weights @ patch
    limits = secret.thresholds[:, None, None]
    if number == len(net.layers) - 1:
      return ((total + layer.inputs) // 2 + limits)[:, 0, 0]
    # The first layer compares its sum, others how many places agree.
    count = total if number == 0 else (total + layer.inputs) // 2
    value, border = np.where(count >= limits, 1, -1), -1
  raise AssertionError


@pytest.mark.parametrize('sparse', [False, True])
def test_bits_are_products_of_signs(sparse):
  net, images = bit_networks.network(sparse=sparse), bit_networks.images(5)
  found = net.run(images)
  assert found.tolist() == [by_hand(net, image).tolist() for image in images]
  assert len(np.unique(found)) > 4


@pytest.mark.parametrize('sparse', [False, True])
def test_a_network_comes_back_from_its_arrays(sparse):
  net, images = bit_networks.network(sparse=sparse), bit_networks.images(150)
  again = BitNetwork.of(net.arrays())
  np.testing.assert_array_equal(again.run(images), net.run(images))
  assert [type(layer) for layer in again.layers] == [type(layer) for layer in net.layers]


def test_windows_are_counted_as_convolutions_with_half_the_kernel_around():
  assert Window(28, 28, 1, 5, 2, 2).side == (14, 14)
  assert Window(7, 5, 3).side == (1, 1) and Window(7, 5, 3).patches.tolist() == [[*range(105)]]
  # The corner of a 3 x 3 window on 2 x 2 places; 4 is the border.
  assert Window(2, 2, 1, 3, 1, 1).patches[0].tolist() == [4, 4, 4, 4, 0, 1, 4, 2, 3]


def test_images_of_another_size_are_refused_in_one_line():
  with pytest.raises(
    ValueError, match=r'images uint8 \(2, 9, 8, 2\), want uint8 \(B, \*\(8, 8, 2\)\)'
  ):
    bit_networks.network().run(np.zeros((2, 9, 8, 2), np.uint8))


def test_a_network_neither_starts_nor_ends_with_a_pool():
  with pytest.raises(ValueError, match='starts or ends with a pool'):
    bit_network.centred(Pool(8, 8, 2), bit_networks.images(1))
  assert isinstance(bit_network.linear(Sums(Window(2, 2, 1), 3)), Sums)
