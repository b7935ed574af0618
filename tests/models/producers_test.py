"""Which filters make an activation's input."""

from safenet_jax.models import architectures, layers
from safenet_jax.models import producers as made_by


def producers(records):
  """By activation, the names of the layers that make its channels, the same for each of them."""
  found = []
  for filters in made_by.producers(tuple(records), 3):
    assert all([index for _, index in some] == [i] * len(some) for i, some in enumerate(filters))
    (names,) = {tuple(name for name, _ in some) for some in filters}
    found.append(names)
  return tuple(found)


def test_producers_name_the_layers_behind_each_activation():
  net = architectures.cnn7(pool_before_activation=True)
  assert producers(net.layers) == tuple((f'conv{i}',) for i in range(7))


def test_a_shortcut_adds_its_own_layers_to_the_producers():
  found = producers(architectures.resnet18().layers)
  assert found[:3] == (('conv0',), ('conv1',), ('conv2',))
  # The first block of the second stage: a branch of two, then the projection.
  assert found[5:8] == (('conv5',), ('conv6', 'conv7'), ('conv8',))


def test_a_shortcut_without_weights_adds_no_producer():
  found = producers(architectures.resnet32().layers)
  assert found == tuple((f'conv{i}',) for i in range(31))


def test_a_sum_of_linear_layers_keeps_all_of_its_producers():
  # Pre-activation blocks add to the output of a convolution itself.
  block = layers.Residual((layers.Activation(), layers.Conv(4)))
  found = producers((layers.Conv(4), block, block, layers.Activation()))
  assert found == (('conv0',), ('conv1', 'conv0'), ('conv2', 'conv1', 'conv0'))


def test_producers_survive_an_activation():
  found = producers((layers.Conv(4), layers.Activation(), layers.MaxPool(), layers.Activation()))
  assert found == (('conv0',), ('conv0',))


def test_a_concatenation_keeps_the_producers_of_every_channel():
  two = layers.Concat(((layers.Conv(1),), (layers.Conv(2), layers.Activation())))
  found = made_by.producers((two, layers.Activation(), layers.Conv(3), layers.Activation()), 3)
  assert found[1] == ((('conv0', 0),), (('conv1', 0),), (('conv1', 1),))
  # A sum with a convolution across the border of two branches.
  block = layers.Residual((two,), (layers.Conv(3),))
  found = made_by.producers((block, layers.Activation()), 3)
  assert found[1] == ((('conv0', 0), ('conv2', 0)), (('conv2', 1),), (('conv2', 2),))
