"""Networks of 224 x 224 have the sizes that torchvision states for them."""

import math

import pytest

from safenet_jax.models import imagenet, layers, network

# Parameters and multiplications of torchvision's models (pytorch.org/vision, "Table of all
# available classification weights": millions with two decimals, and GFLOPS); batch norm has two
# parameters a channel, and its running statistics are none.
STATED = {
  'squeezenet': (1_235_496, 0.35e9),
  'mobilenet_v2': (3_504_872, 0.30e9),
  'resnet18': (11_689_512, 1.81e9),
  'resnet50': (25_557_032, 4.09e9),
}


def parameters(shape):
  layer = shape.layer
  match layer:
    case layers.Conv():
      weights = layer.kernel**2 * shape.input_shape[-1] // layer.groups * layer.features
      return weights + layer.features * (2 if layer.batch_norm else 1)
    case layers.Dense():
      return math.prod(shape.input_shape) * layer.features + layer.features
  return 0


@pytest.mark.parametrize('name', imagenet.NETWORKS)
def test_parameters_and_multiplications_are_those_that_torchvision_states(name):
  found = imagenet.NETWORKS[name]()
  shapes = layers.shapes(found.layers, found.input_shape)
  count, multiplications = STATED[name]
  assert sum(map(parameters, shapes)) == count
  assert sum(shape.macs for shape in shapes) == pytest.approx(multiplications, rel=0.02)
  assert shapes[-1].output_shape == (1000,)


@pytest.mark.parametrize('name, relus', [('resnet18', 2_308_096), ('resnet50', 9_608_704)])
def test_relus_are_those_of_the_text(name, relus):
  assert sum(network.relu_counts(imagenet.NETWORKS[name]())) == relus
