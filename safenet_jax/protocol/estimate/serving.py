"""Whether a network can be served, in which modes, and if not, why: before anyone trains it."""

from safenet_jax.approximation import plans
from safenet_jax.approximation.plans import Plan
from safenet_jax.fixed_point.model import FixedPointModel
from safenet_jax.models.network import activation_channels, Network
from safenet_jax.protocol.estimate import untrained
from safenet_jax.protocol.service import description, sessions


def refusals(network: Network, plan: Plan | None = None) -> dict[str, str | None]:
  """For every mode of `sessions.MODES`, why it does not serve the network; None where it does.

  A model with the network's structure goes through all that its trained one goes through:
  `quantize`, a server's start, and a client's checks. So the reasons are those that would come
  then. Only values that do not fit are not found: they depend on the weights.

  Args:
    network: its layer records.
    plan: which channels become polynomials; None is ReLU everywhere.
  """
  plan = plan or plans.all_relu(len(activation_channels(network)))
  try:
    model = untrained.model(network, plan)
  except ValueError as error:
    return dict.fromkeys(sessions.MODES, str(error))
  return of(model)


def of(model: FixedPointModel) -> dict[str, str | None]:
  """As `refusals`, of a model."""
  found: dict[str, str | None] = {}
  for mode in sessions.MODES:
    try:
      description.check(model, mode)
      found[mode] = None
    except ValueError as error:
      found[mode] = str(error)
  return found


def check_any(reasons: dict[str, str | None]) -> None:
  """ValueError where no mode serves a network; `reasons` as `refusals` gives them."""
  if all(reasons.values()):
    raise ValueError(f'the network cannot be served: {"; ".join(_lines(reasons))}')


def _lines(reasons: dict[str, str | None]) -> list[str]:
  """Each reason once, with the modes that have it if not all do."""
  found: dict[str, list[str]] = {}
  for mode, reason in reasons.items():
    if reason:
      found.setdefault(reason, []).append(mode)
  return [
    reason if len(modes) == len(reasons) else f'{", ".join(modes)}: {reason}'
    for reason, modes in found.items()
  ]


def lines(reasons: dict[str, str | None]) -> list[str]:
  """Lines for people: the modes that serve a network, and why others do not."""
  served = ', '.join(mode for mode, reason in reasons.items() if not reason)
  return [f'served in modes: {served or "none"}', *(f'not served, {x}' for x in _lines(reasons))]
