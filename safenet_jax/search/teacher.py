"""The trained network whose soft labels others learn from."""

from typing import Any

from flax import struct
import jax
import jax.numpy as jnp

from safenet_jax import data
from safenet_jax.models.network import Network
from safenet_jax.search.training import compute_dtype, Training


class Teacher(struct.PyTreeNode):
  """A trained all-ReLU network; its student may be smaller (Hinton et al., arXiv:1503.02531).

  variables: its weights and batch-norm statistics.
  network: of any architecture with the student's classes.
  mean, std: statistics that its images were normalised by, one number per channel.
  by_batch: whether its batch norm uses the statistics of the batch, as its student's does in
    training. That is right where its own statistics are not those of augmented images.
  """

  variables: Any
  network: Network = struct.field(pytree_node=False)
  mean: tuple[float, ...] = struct.field(pytree_node=False)
  std: tuple[float, ...] = struct.field(pytree_node=False)
  by_batch: bool = struct.field(pytree_node=False, default=True)

  def logits(self, images: jax.Array) -> jax.Array:
    """[B, classes] of images uint8 [B, H, W, C], augmented as the student's."""
    images = data.normalise(images, self.mean, self.std)
    mutable = ['batch_stats'] if self.by_batch else False
    found = self.network.apply(self.variables, images, train=self.by_batch, mutable=mutable)
    return jnp.asarray(found[0] if self.by_batch else found)


def own(
  network: Network, trained: dict[str, Any], images: data.Dataset, training: Training
) -> Teacher | None:
  """The all-ReLU network as the teacher of its own plans; None without distillation."""
  if not training.distillation:
    return None
  return Teacher(trained, network.clone(dtype=compute_dtype(training)), images.mean, images.std)
