"""Who holds how much of a server: connections, sessions, memory, and predictions of today.

What a visitor will hold is reserved before any work is done for it. Where a server is full,
a newcomer gets the place of a holder that is idle, if there is one. It is the holder that is
idle longest, of the visitor that holds most. Nobody gets a place from a visitor that holds no
more than himself: so no visitor can push all the others out. A holder that is not idle is
never given up.

Arguments and results are plain values. So a process can use the accounts of another one.
"""

import collections
from collections.abc import Callable, Mapping
import dataclasses
import ipaddress
import threading
import time
from typing import NamedTuple

from safenet_jax.transport.frames import ProtocolError

CONNECTION, SESSION, BYTES = 'connection', 'session', 'bytes'
_DAY = 86400.0
# A client between two commands may be at work on an answer.
_GRACE_SECONDS = 2.0


class DeniedError(ProtocolError):
  """A visitor does not get what it asked for; says why in one line."""


class Visitor(NamedTuple):
  """Who a client is, as far as a server knows.

  address: its IP address.
  identity: SHA-256 of its certificate in hex; None without one that was verified.
  token: what it calls itself, in hex, so that its preparations outlive a connection; None
    where it does not. Anybody can have many of them: they are no quota's measure.
  """

  address: str
  identity: str | None = None
  token: str | None = None

  @classmethod
  def at(cls, address: str) -> 'Visitor':
    """Of an address as sockets give it."""
    found = ipaddress.ip_address(address.partition('%')[0])
    mapped = getattr(found, 'ipv4_mapped', None)
    return cls(str(mapped or found))

  @property
  def owner(self) -> str:
    """Whose quotas count: those of its certificate, else those of its address.

    A network of 64 bits counts as one address of IPv6, since it is the least that a
    customer gets (RFC 6177).
    """
    return self.identity or _network(self.address)


class Limit(NamedTuple):
  """How much of one kind there is.

  total: of all visitors together.
  each: of one visitor.
  grace: seconds that a holder may be idle before its place can go to another one.
  """

  total: int
  each: int
  grace: float = 0.0


def limits(
  connections: int = 64,
  sessions: int = 8,
  memory_bytes: int = 4 << 30,
  *,
  address_sessions: int | None = None,
) -> dict[str, Limit]:
  """Limits of each kind, with those of one visitor.

  One visitor has the same part of connections and of memory as of sessions.

  Args:
    connections: the most without a session, in their TLS handshake or waiting for a place.
    sessions: the most at once.
    memory_bytes: the most that preparations take.
    address_sessions: the most of one visitor. By default half of them, and two at least: a
      client that prepares in the background has two.

  Raises:
    ValueError: a number below 1.
  """
  each = max(2, sessions // 2) if address_sessions is None else address_sessions
  for name, number in (
    ('connections', connections),
    ('sessions', sessions),
    ('sessions of one address', each),
  ):
    if number < 1:
      raise ValueError(f'{number} {name}, want at least 1')
  each = min(each, sessions)
  return {
    CONNECTION: Limit(connections, max(1, connections * each // sessions)),
    SESSION: Limit(sessions, each, _GRACE_SECONDS),
    BYTES: Limit(memory_bytes, memory_bytes * each // sessions),
  }


class Counts(NamedTuple):
  """What one visitor holds; `predictions` are those of this day (UTC)."""

  connections: int = 0
  sessions: int = 0
  bytes: int = 0
  predictions: int = 0


@dataclasses.dataclass
class _Holder:
  kind: str
  owner: str
  amount: int
  idle_since: float | None


class Accounts:
  """Counts what visitors hold. All methods are safe in any thread.

  A holder is known by its ticket. Kinds are CONNECTION, for connections without a session
  yet, which count for their address alone; SESSION; and BYTES, of preparations.
  """

  def __init__(
    self,
    limits: Mapping[str, Limit],
    clock: Callable[[], float] = time.monotonic,
    now: Callable[[], float] = time.time,
  ):
    """Starts empty.

    Args:
      limits: of each kind.
      clock: seconds, for how long a holder is idle.
      now: seconds since 1970, for the day that predictions count for.
    """
    self._limits, self._clock, self._now = dict(limits), clock, now
    self._lock = threading.Lock()
    self._evict: dict[str, list[Callable[[int, str], None]]] = {kind: [] for kind in limits}
    self._holders: dict[str, dict[int, _Holder]] = {kind: {} for kind in limits}
    self._held: dict[str, collections.Counter[str]] = {
      kind: collections.Counter() for kind in limits
    }
    self._kinds: dict[int, str] = {}
    self._last = 0
    self._day = -1
    self._predictions: collections.Counter[str] = collections.Counter()

  @property
  def kinds(self) -> tuple[str, ...]:
    """What there are limits of."""
    return tuple(self._limits)

  def on_evict(self, callback: Callable[[int, str], None], *kinds: str) -> None:
    """Has a function called with the ticket and a reason where a holder was given up.

    It is called in the thread that needed the place, for holders of these kinds.
    """
    for kind in kinds:
      self._evict[kind].append(callback)

  def reserve(self, kind: str, visitor: Visitor, amount: int = 1, *, idle: bool = False) -> int:
    """Takes so much for a visitor, and gives the ticket of it.

    Args:
      kind: of what.
      visitor: for whom.
      amount: how much.
      idle: whether the holder counts as idle from the beginning.

    Raises:
      DeniedError: there is not so much, even without those who are idle; then nobody was given up.
    """
    owner = _owner(kind, visitor)
    with self._lock:
      found = self._victims(kind, owner, amount)
      for ticket, _ in found:
        self._remove(ticket)
      self._last += 1
      ticket = self._last
      since = self._clock() if idle else None
      self._holders[kind][ticket] = _Holder(kind, owner, amount, since)
      self._kinds[ticket] = kind
      self._held[kind][owner] += amount
    # Without the lock: a callback may release other tickets.
    for victim, reason in found:
      for callback in self._evict[kind]:
        callback(victim, reason)
    return ticket

  def touch(self, ticket: int, idle: bool) -> bool:
    """Says whether a holder is idle from now on; gives whether it was not given up before."""
    with self._lock:
      kind = self._kinds.get(ticket)
      if kind is None:
        return False
      self._holders[kind][ticket].idle_since = self._clock() if idle else None
      return True

  def release(self, ticket: int, amount: int | None = None) -> bool:
    """Gives back a part of what a ticket is for, or all of it.

    Unknown tickets are let pass. Gives whether the ticket still stands for something.
    """
    with self._lock:
      kind = self._kinds.get(ticket)
      if kind is None:
        return False
      holder = self._holders[kind][ticket]
      if amount is None or amount >= holder.amount:
        self._remove(ticket)
        return False
      holder.amount -= amount
      self._held[kind][holder.owner] -= amount
      return True

  def predictions(self, visitor: Visitor, count: int) -> int:
    """Adds to the predictions of a visitor today, and gives their number.

    A negative count takes back what was added for a request that was then refused.
    """
    with self._lock:
      self._new_day()
      total = max(0, self._predictions[visitor.owner] + count)
      self._predictions[visitor.owner] = total
      if not total:
        del self._predictions[visitor.owner]
      return total

  def counts(self, visitor: Visitor) -> Counts:
    """What a visitor holds at this moment."""
    with self._lock:
      self._new_day()
      held = {kind: found[_owner(kind, visitor)] for kind, found in self._held.items()}
      return Counts(
        held.get(CONNECTION, 0),
        held.get(SESSION, 0),
        held.get(BYTES, 0),
        self._predictions[visitor.owner],
      )

  def _new_day(self) -> None:
    day = int(self._now() // _DAY)
    if day != self._day:
      self._day = day
      self._predictions.clear()

  def _remove(self, ticket: int) -> None:
    kind = self._kinds.pop(ticket)
    holder = self._holders[kind].pop(ticket)
    held = self._held[kind]
    held[holder.owner] -= holder.amount
    if not held[holder.owner]:
      del held[holder.owner]

  def _victims(self, kind: str, owner: str, amount: int) -> list[tuple[int, str]]:
    """Tickets that have to go so that `owner` can have `amount` more, each with a reason."""
    limit, held = self._limits[kind], self._held[kind].copy()
    total, found = sum(held.values()), list[tuple[int, str]]()
    idle: dict[str, collections.deque[int]] | None = None
    while True:
      own = held[owner] + amount > limit.each
      if not own and total + amount <= limit.total:
        return found
      idle = self._idle(kind) if idle is None else idle
      fair = [
        each
        for each, tickets in idle.items()
        if tickets and (each == owner or (not own and held[each] > held[owner]))
      ]
      if not fair:
        raise DeniedError(_refusal(kind, limit, own, held[owner] if own else total, amount))
      # Of several who hold most, the newcomer gives up one of its own.
      loser = max(fair, key=lambda each: (held[each], each == owner))
      ticket = idle[loser].popleft()
      holder = self._holders[kind][ticket]
      held[loser] -= holder.amount
      total -= holder.amount
      seconds = self._clock() - (holder.idle_since or 0.0)
      found.append((ticket, f'idle for {seconds:.0f} s, and its place was needed'))

  def _idle(self, kind: str) -> dict[str, collections.deque[int]]:
    """Tickets that may be given up, by owner; those that are idle longest first."""
    latest = self._clock() - self._limits[kind].grace
    found: dict[str, collections.deque[int]] = collections.defaultdict(collections.deque)
    waiting = [
      (holder.idle_since, ticket, holder.owner)
      for ticket, holder in self._holders[kind].items()
      if holder.idle_since is not None and holder.idle_since <= latest
    ]
    for _, ticket, owner in sorted(waiting):
      found[owner].append(ticket)
    return found


def _owner(kind: str, visitor: Visitor) -> str:
  return _network(visitor.address) if kind == CONNECTION else visitor.owner


def _network(address: str) -> str:
  if ':' not in address:
    return address
  return str(ipaddress.ip_network((address, 64), strict=False))


def _refusal(kind: str, limit: Limit, own: bool, held: int, amount: int) -> str:
  """Why there is no place, in one line."""
  whose = ' of this client' if own and limit.each < limit.total else ''
  most = limit.each if own else limit.total
  if kind == BYTES:
    return (
      f'prepared inferences{whose} hold {held >> 20} MiB, {amount >> 20} MiB more are asked '
      f'for, and {most >> 20} MiB is the limit: use some first'
    )
  return f'busy with {most} {kind}s{whose}, try again later'
