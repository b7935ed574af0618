"""The real CIFAR sets, where SAFENET_DATA_DIR has them."""

import os

import numpy as np
import pytest

from safenet_jax import data


@pytest.mark.parametrize('name, classes', [('cifar10', 10), ('cifar100', 100)])
def test_real_cifar_has_its_sizes_its_classes_and_its_statistics(name, classes):
  if not os.environ.get('SAFENET_DATA_DIR'):
    pytest.skip(f'SAFENET_DATA_DIR is not set: no {name} images')
  found = data.load(name)
  assert [len(part.labels) for part in (found.train, found.validation, found.test)] == [
    45000,
    5000,
    10000,
  ]
  assert found.train.images.shape == (45000, 32, 32, 3) and found.train.images.dtype == np.uint8
  assert found.classes == classes
  labels = np.concatenate([found.train.labels, found.validation.labels])
  assert (np.bincount(labels) == 50000 // classes).all()
  assert (np.bincount(found.test.labels) == 10000 // classes).all()
  mean = found.train.images.mean((0, 1, 2)) / 255
  np.testing.assert_allclose(mean, found.mean, atol=2e-3)
