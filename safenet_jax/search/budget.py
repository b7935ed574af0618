"""A ReLU budget planner: the most accurate network with at most so many ReLUs.

CryptoNAS's idea (Ghodsi et al. 2020) on this search space. PBT sorts members by
accuracy alone. `pbt.project` raises the ratios of every plan until it meets the
budget, so that no other plan is ever trained.
"""

from safenet_jax.search import score
from safenet_jax.search.pbt import Step


def schedule(sizes: score.Activations, relus: int, cycles: int) -> list[Step]:
  """Plain PBT among plans that leave at most `relus` ReLUs per image.

  ValueError for a budget below 0 or above the ReLUs that the network has.
  """
  total, layers = sum(sizes.counts), len(sizes.counts)
  if not 0 <= relus <= total:
    raise ValueError(f'a budget of {relus} ReLUs, want 0..{total}')
  return [Step.everywhere('budget', layers, cycles, 'random', floor=total - relus)]
