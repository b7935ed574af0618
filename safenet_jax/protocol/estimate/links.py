"""Networks between the two parties."""

import math
from typing import NamedTuple


class Link(NamedTuple):
  """A network between the parties.

  name: for people.
  bits_per_second: each way.
  round_trip: seconds.
  """

  name: str
  bits_per_second: float
  round_trip: float

  def __str__(self) -> str:
    size, unit = (1e9, 'Gbit/s') if self.bits_per_second >= 1e9 else (1e6, 'Mbit/s')
    rate = f'{self.bits_per_second / size:g} {unit}'
    return f'{self.name}, {rate}, {self.round_trip * 1e3:g} ms'


LAN = Link('LAN', 1e9, 1e-3)
WAN = Link('WAN', 100e6, 40e-3)
_NAMED = {'lan': LAN, 'wan': WAN}
# A round trip that is longer is not one of a local network.
_LOCAL_SECONDS = 10e-3


def parse(text: str) -> Link:
  """The link of 'lan', 'wan', or 'RATE,RTT': bits a second each way, and seconds a round trip.

  Raises:
    ValueError: the text is neither, or a number is out of its range.
  """
  if text.lower() in _NAMED:
    return _NAMED[text.lower()]
  try:
    rate, round_trip = map(float, text.split(','))
  except ValueError:
    rate = round_trip = math.nan
  if not (0 < rate < math.inf and 0 <= round_trip < math.inf):
    raise ValueError(
      f'a link {text[:40]!r}, want lan, wan, or RATE,RTT: bits a second and seconds, as 100e6,0.04'
    )
  return Link('link', rate, round_trip)


def measured(round_trip: float) -> Link:
  """The link of which only the round trip is known: its rate is that of `LAN` or of `WAN`."""
  like = LAN if round_trip <= _LOCAL_SECONDS else WAN
  return Link('measured', like.bits_per_second, round_trip)
