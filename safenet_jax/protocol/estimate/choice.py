"""Which of a server's modes a client takes: the one that is estimated to take least time."""

from collections.abc import Callable

from safenet_jax.protocol.estimate import estimate as estimates
from safenet_jax.protocol.estimate import links, unit_costs
from safenet_jax.protocol.service.description import Description


def over(
  link: links.Link | str | None = None, costs: unit_costs.UnitCosts = unit_costs.DEFAULT
) -> Callable[[Description, float], str]:
  """The argument `choose` of a `Client`.

  Args:
    link: to the server, perhaps as text for `links.parse`. For None its round trip is the one
      that was measured as the client connected, and its rate one that is usual with it.
    costs: what operations take on both machines.

  Raises:
    ValueError: the text is no link.
  """
  stated = links.parse(link) if isinstance(link, str) else link

  def choose(description: Description, round_trip: float) -> str:
    model, offered = description.model, description.choices
    found = {mode: estimates.inference(model, mode, costs) for mode in offered}
    return estimates.cheapest(found, stated or links.measured(round_trip))

  return choose
