"""Accounts that several server processes share: the parent has them, its children ask.

    child: RemoteAccounts                     parent: SharedAccounts
      (number, method, arguments)  ------->     calls its `Accounts`
      (number, answer)             <-------     or the reason of a refusal
      (kind, ticket, reason)       <-------     a ticket of this child that was given up

The pipes are between processes of one program, so that what comes through them is trusted.
"""

import contextlib
import functools
from multiprocessing import connection
import queue
import threading
from typing import Any

from safenet_jax.transport import accounts
from safenet_jax.transport.accounts import Accounts, Counts, DeniedError, Visitor

# Instead of a question's number: a ticket was given up.
_GIVEN_UP = -1
_ASKED = 'reserve', 'touch', 'release', 'predictions', 'counts'


class SharedAccounts:
  """The parent's side. All of it runs in one thread, so that no two children interleave."""

  def __init__(self, own: Accounts):
    self._accounts = own
    self._holders: dict[int, connection.Connection] = {}
    for kind in own.kinds:
      own.on_evict(functools.partial(self._give_up, kind), kind)

  def answer(self, pipe: connection.Connection, question: tuple) -> None:
    """Answers a child's question.

    Raises:
      ValueError: no such question.
      OSError: the child has ended.
    """
    number, method, arguments, options = question
    if method not in _ASKED:
      raise ValueError(f'method {method!r} of accounts, want one of {", ".join(_ASKED)}')
    try:
      found, reason = getattr(self._accounts, method)(*arguments, **options), None
    except DeniedError as error:
      found, reason = None, str(error)
    if method == 'reserve' and reason is None:
      self._holders[found] = pipe
    if method == 'release' and not found:
      self._holders.pop(arguments[0], None)
    pipe.send((number, found, reason))

  def forget(self, pipe: connection.Connection) -> None:
    """Gives back what a child holds that has ended."""
    for ticket in [ticket for ticket, holder in self._holders.items() if holder is pipe]:
      del self._holders[ticket]
      self._accounts.release(ticket)

  def _give_up(self, kind: str, ticket: int, reason: str) -> None:
    pipe = self._holders.pop(ticket, None)
    if pipe is not None:
      with contextlib.suppress(OSError):  # it has ended, which its end of the pipe will tell
        pipe.send((_GIVEN_UP, (kind, ticket), reason))


class RemoteAccounts(Accounts):
  """A child's side: `Accounts` whose every answer comes from the parent.

  `take` must be given every message of the parent that is about accounts.
  """

  def __init__(self, pipe: connection.Connection):
    super().__init__(accounts.limits())  # of which only the kinds count
    self._pipe = pipe
    self._sending, self._number = threading.Lock(), 0
    self._asked: dict[int, queue.SimpleQueue[tuple[Any, str | None]]] = {}
    self._given_up: queue.SimpleQueue[tuple[tuple[str, int], str]] = queue.SimpleQueue()
    # A thread of its own: what it calls may ask in its turn, or wait for one who asks.
    threading.Thread(target=self._give_up, name='given up', daemon=True).start()

  def take(self, number: int, found: Any, reason: Any) -> None:
    """A message of the parent."""
    if number == _GIVEN_UP:
      self._given_up.put((found, reason))
    else:
      self._asked.pop(number).put((found, reason))

  def _give_up(self) -> None:
    while True:
      (kind, ticket), reason = self._given_up.get()
      for callback in self._evict[kind]:
        callback(ticket, reason)

  def _ask(self, method: str, *arguments, **options) -> Any:
    answer: queue.SimpleQueue[tuple[Any, str | None]] = queue.SimpleQueue()
    with self._sending:
      self._number += 1
      self._asked[self._number] = answer
      self._pipe.send((self._number, method, arguments, options))
    found, reason = answer.get()
    if reason is not None:
      raise DeniedError(reason)
    return found

  def reserve(self, kind: str, visitor: Visitor, amount: int = 1, *, idle: bool = False) -> int:
    """As `Accounts.reserve`."""
    return self._ask('reserve', kind, visitor, amount, idle=idle)

  def touch(self, ticket: int, idle: bool) -> bool:
    """As `Accounts.touch`."""
    return self._ask('touch', ticket, idle)

  def release(self, ticket: int, amount: int | None = None) -> bool:
    """As `Accounts.release`."""
    return self._ask('release', ticket, amount)

  def predictions(self, visitor: Visitor, count: int) -> int:
    """As `Accounts.predictions`."""
    return self._ask('predictions', visitor, count)

  def counts(self, visitor: Visitor) -> Counts:
    """As `Accounts.counts`."""
    return self._ask('counts', visitor)
