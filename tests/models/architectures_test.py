"""The paper's networks: published ReLU counts, widths, classes, input shapes."""

import jax
import jax.numpy as jnp
import pytest

from safenet_jax.models import architectures, layers
from safenet_jax.models import network as networks


@pytest.mark.parametrize(
  'net, counts, total',
  [
    (architectures.cnn7(), [(65536, 2), (16384, 2), (4096, 2), (1024, 1)], 173_056),
    (
      architectures.cnn7(pool_before_activation=True),
      [(65536, 1), (16384, 2), (4096, 3), (1024, 1)],
      111_616,
    ),
    (
      architectures.vgg16(),
      [(65536, 2), (32768, 2), (16384, 3), (8192, 3), (2048, 3), (512, 1)],
      276_992,
    ),
    (architectures.vgg16(max_pool=True), None, 276_992),
    (architectures.resnet32(100), [(16384, 11), (8192, 10), (4096, 10)], 303_104),
    (
      architectures.resnet18(100),
      [(65536, 5), (32768, 4), (16384, 4), (8192, 4)],
      557_056,
    ),
  ],
)
def test_relu_counts_are_the_published_ones(net, counts, total):
  found = networks.relu_counts(net)
  assert sum(found) == total
  if counts:
    assert list(found) == [count for count, times in counts for _ in range(times)]


@pytest.mark.parametrize(
  'name, shape, options',
  [
    ('cnn7', (12, 12, 1), {'pool_before_activation': True}),
    ('vgg16', (32, 32, 1), {}),
    ('vgg16', (32, 32, 3), {'max_pool': True}),
    ('resnet32', (8, 8, 3), {}),
    ('resnet18', (28, 28, 1), {}),
  ],
)
def test_networks_compute_the_shapes_of_their_records(name, shape, options):
  net = architectures.build(name, classes=7, width=0.0625, input_shape=shape, **options)
  images = jnp.zeros((2, *shape))

  def outputs(key):
    variables = net.init(key)
    return net.apply(variables, images, mutable=['preactivations'])

  logits, state = jax.eval_shape(outputs, jax.random.key(0))
  assert logits.shape == (2, 7)
  for record in layers.shapes(net.layers, shape):
    if isinstance(record.layer, layers.Activation):
      sown = state['preactivations'][record.name][0].shape
      assert sown == (2, *record.output_shape)


def test_parameters_are_those_of_the_literature():
  """0.46 M of ResNet-32 (He et al., table 6), 11.17 M of ResNet-18 for CIFAR."""
  for net, millions in ((architectures.resnet32(), 0.46), (architectures.resnet18(), 11.17)):
    params = jax.eval_shape(net.init, jax.random.key(0))['params']
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert round(count / 1e6, 2) == millions


def test_maps_that_the_pools_do_not_divide_are_refused():
  with pytest.raises(ValueError, match='divide a 7 x 7 map'):
    networks.relu_counts(architectures.vgg16(input_shape=(28, 28, 1)))


def test_unknown_networks_and_options_are_refused():
  with pytest.raises(ValueError, match='cnn7'):
    architectures.build('cnn8')
  with pytest.raises(ValueError, match='depth'):
    architectures.build('cnn7', depth=3)
  with pytest.raises(ValueError, match='width'):
    architectures.build('cnn7', width=0.001)


def test_a_registered_network_is_built_by_its_name(monkeypatch):
  monkeypatch.setattr(architectures, '_OWN', {})

  def own(classes, input_shape, width=1.0):
    return networks.Network((layers.Flatten(), layers.Dense(classes)), input_shape)

  with pytest.raises(ValueError, match="unknown network 'own', want one of cnn7, "):
    architectures.build('own')
  for _ in range(2):  # a config is read twice
    architectures.register('own', own)
  net = architectures.build('own', classes=4, input_shape=(2, 2, 1), width=0.5)
  assert net.layers[1].features == 4
  with pytest.raises(ValueError, match='network own: .*depth'):
    architectures.build('own', classes=4, input_shape=(2, 2, 1), depth=3)
  with pytest.raises(ValueError, match='want one of cnn7, own, '):
    architectures.build('other')


def test_a_ready_made_network_is_not_replaced():
  with pytest.raises(ValueError, match="network 'cnn7' is ready-made"):
    architectures.register('cnn7', architectures.vgg16)


@pytest.mark.parametrize('name', sorted(architectures.ARCHITECTURES))
@pytest.mark.parametrize('share', [0.05, 0.13, 0.5, 0.999, 1.0])
def test_the_widest_network_within_a_budget_has_no_room_for_a_channel_more(name, share):
  def count(width):
    return sum(networks.relu_counts(architectures.build(name, width=width)))

  budget = int(share * count(1.0))
  width = architectures.widest(lambda width: architectures.build(name, width=width), budget)
  assert count(width) <= budget and width <= 1
  if width < 1:
    # The next width at which any layer grows, of 512 features at most.
    counts = {count(width + step / 2048) for step in range(1, 200)}
    assert min(counts - {count(width)}) > budget


def test_a_width_is_looked_for_below_its_limit():
  def network(width):
    return architectures.cnn7(width=width)

  full = sum(networks.relu_counts(network(0.25)))
  assert architectures.widest(network, 10 * full, 0.25) == 0.25
  assert architectures.widest(network, full - 1, 0.25) < 0.25


def test_a_budget_below_one_channel_a_layer_is_refused():
  with pytest.raises(ValueError, match='at most 100 ReLUs'):
    architectures.widest(lambda width: architectures.cnn7(width=width), 100)
  with pytest.raises(ValueError, match='unknown network'):
    architectures.widest(lambda width: architectures.build('cnn9', width=width), 10**6)
