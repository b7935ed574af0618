import dataclasses

import numpy as np

from safenet_jax import data
from safenet_jax.systems import minionn_training


def test_a_few_passes_over_some_images_let_the_integers_tell_classes_apart():
  images = data.load('fashion_mnist')
  some = dataclasses.replace(images, train=data.Split(*(part[:512] for part in images.train)))
  losses = []
  model = minionn_training.train(some, epochs=4, report=lambda _, loss: losses.append(loss))
  assert losses[-1] < losses[0]
  test, labels = (np.asarray(part[:100]) for part in images.test)
  assert (model.run(test).argmax(-1) == labels).mean() > 0.4
