import jax
import numpy as np
import pytest

from safenet_jax import data
from safenet_jax.systems import square_network, square_training
from safenet_jax.systems.square_network import SquareNetwork


def network(seed=0, maps=2, units=3, classes=4):
  """A small network with integers of every sign."""
  random = np.random.default_rng(seed)

  def integers(*shape):
    return random.integers(-3, 4, shape)

  return SquareNetwork(
    integers(25, maps),
    integers(maps),
    integers(169 * maps, units),
    integers(units),
    integers(units, classes),
    integers(classes).astype(object),
  )


def images(count=3):
  return data.load('fashion_mnist').test.images[:count]


def by_hand(net, image):
  """The logits of one image, position by position."""
  padded = np.zeros((29, 29), np.int64)
  padded[1:, 1:] = image[..., 0] // 16
  squares = []
  for row in range(13):
    for column in range(13):
      window = padded[2 * row : 2 * row + 5, 2 * column : 2 * column + 5].reshape(-1)
      squares += [(int(window @ w) + int(b)) ** 2 for w, b in zip(net.conv.T, net.conv_bias)]
  hidden = [
    sum(int(w) * s for w, s in zip(column, squares)) + int(b)
    for column, b in zip(net.hidden.T, net.hidden_bias)
  ]
  return [
    sum(int(w) * h**2 for w, h in zip(column, hidden)) + b
    for column, b in zip(net.output.T, net.output_bias)
  ]


def test_integers_are_those_of_the_layers():
  net, some = network(), images()
  assert net.run(some).tolist() == [by_hand(net, image) for image in some]


def test_no_logit_exceeds_the_bound_even_of_the_brightest_image():
  for seed in range(3):
    net = network(seed)
    some = np.concatenate([images(), np.full((1, 28, 28, 1), 255, np.uint8)])
    assert 0 < np.abs(net.run(some)).max() <= net.bound


def test_arrays_keep_integers_of_more_than_64_bits():
  net = network()._replace(output_bias=np.array([1 << 70, -(1 << 80), 0, 1], object))
  kept = SquareNetwork.of(net.arrays())
  for one, other in zip(net, kept):
    np.testing.assert_array_equal(one, other)


def test_quantized_classes_are_those_of_the_floats_for_nearly_all_images():
  fashion = data.load('fashion_mnist')
  start = square_training.initial(jax.random.key(1), 2, 10, 10)
  floats = square_training.forward(start, fashion.test.images[:200])
  parameters = {name: np.asarray(value, np.float64) for name, value in start.items()}
  found = square_training.quantized(parameters).run(fashion.test.images[:200])
  assert (found.argmax(-1) == np.asarray(floats).argmax(-1)).mean() > 0.9


def test_training_learns():
  fashion = data.load('fashion_mnist')
  net = square_training.train(fashion, maps=1, units=10, epochs=2)
  found = net.run(fashion.validation.images).argmax(-1)
  assert (found == fashion.validation.labels).mean() > 0.5


@pytest.mark.parametrize(
  'wrong',
  [
    np.zeros((1, 32, 32, 3), np.uint8),
    np.zeros((1, 28, 28, 1), np.float32),
    np.zeros((0, 28, 28, 1), np.uint8),
  ],
)
def test_other_images_are_refused(wrong):
  with pytest.raises(ValueError, match='want uint8 \\[B, 28, 28, 1\\]'):
    square_network.pixels(wrong)
