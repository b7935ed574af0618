"""Binary-tree PBT (Algorithm 1, Figures 4a and 6).

The root of the tree searches one ratio and one degree for all layers. Then the
layers of every node are divided in two halves, in breadth-first order, down to
single layers. The two halves are searched jointly, each with a ratio and a
degree of its own. At last all layers are searched from the best candidate.

Which layers share a ratio and which are searched at all are arrays. So the whole
tree runs in the one executable of `population.cycle`.
"""

from safenet_jax.search.pbt import Step


def schedule(
  layers: int,
  node_cycles: int,
  joint_cycles: int,
  *,
  patience: int = 0,
  draws: int = 1,
  fresh: bool = False,
) -> list[Step]:
  """The tree's nodes in order, for a network of T = `layers` activation layers.

  Groups are named by their first layer. The left child takes the first
  floor(n / 2) layers of a node of n. There are T runs of `node_cycles` (the
  root and T - 1 pairs of siblings) and one joint run of `joint_cycles`.

  The options make the tree cheaper and are those of `pbt.Step`. The joint run has no
  patience, because nothing comes after it.

  Raises:
    ValueError: without a layer.
  """
  if layers < 1:
    raise ValueError(f'{layers} activation layers, want at least 1')
  group = [0] * layers
  steps = [Step('root', tuple(group), (True,) * layers, node_cycles, 'random')]
  queue = [(0, layers)]
  while queue:
    first, end = queue.pop(0)
    if end - first == 1:
      continue
    middle = first + (end - first) // 2
    group[middle:end] = [middle] * (end - middle)
    active = tuple(first <= t < end for t in range(layers))
    steps.append(
      Step(
        f'{first}-{middle - 1}|{middle}-{end - 1}', tuple(group), active, node_cycles, 'candidate'
      )
    )
    queue += [(first, middle), (middle, end)]
  steps = [step._replace(patience=patience) for step in steps]
  steps.append(Step.everywhere('joint', layers, joint_cycles, 'winner'))
  return [step._replace(draws=draws, fresh=fresh) for step in steps]
