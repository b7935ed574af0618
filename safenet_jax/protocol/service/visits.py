"""One session as the accounts and the policy see it: what is asked, reserved and given back."""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import logging
import threading

from safenet_jax.protocol.delphi import progress, server_offline
from safenet_jax.protocol.delphi.material import ServerMaterial
from safenet_jax.protocol.service.handshake import Hello
from safenet_jax.protocol.service.policy import Policy
from safenet_jax.protocol.service.store import ServerStore
from safenet_jax.transport import accounts as visitors
from safenet_jax.transport.accounts import Accounts, DeniedError, Visitor
from safenet_jax.transport.channel import Channel, RefusedError
from safenet_jax.transport.frames import ProtocolError
from safenet_jax.transport.listener import Guest
from safenet_jax.transport.stream import HungUpError, LostError

_LOGGER = logging.getLogger(__name__)


class Visit:
  """What one session may do, and what it holds until it ends."""

  def __init__(self, guest: Guest, accounts: Accounts, policy: Policy, store: ServerStore):
    """Begins; asks nobody yet."""
    self.visitor: Visitor = guest.visitor
    self.asked = False
    self._ticket, self._accounts = guest.ticket, accounts
    self._policy, self._store = policy, store
    self._hello: Hello | None = None
    # Whether the client may have sent a command that nobody here will read.
    self._in_doubt = False

  def connect(self) -> None:
    """DeniedError where the policy does not want this visitor."""
    self._ask(self._policy.connect, self._accounts.counts(self.visitor))

  def welcome(self, hello: Hello) -> bytes:
    """Takes what the client says about itself, and gives the answers to its claims."""
    self._hello = hello
    self.visitor = self.visitor._replace(token=hello.token.hex() if hello.token else None)
    # With these answers the client may send a command, right behind its last message here.
    self._in_doubt = True
    return self._store.enter(hello)

  @contextlib.contextmanager
  def strange(self, channel: Channel, seconds: float) -> Iterator[None]:
    """Dismisses a client that has asked for nothing after so many seconds.

    One that has preparations here may wait longer: it has another connection in which it
    made them, or made them before.
    """

    def dismiss():
      if not self.asked and not self._accounts.counts(self.visitor).bytes:
        channel.dismiss(f'no command in {seconds:g} s')

    timer = threading.Timer(seconds, dismiss)
    timer.daemon = True
    timer.start()
    try:
      yield
    finally:
      timer.cancel()

  @contextlib.contextmanager
  def idle(self) -> Iterator[None]:
    """The block waits for a command: the place of this session may go to somebody else.

    Raises:
      DeniedError: it went. Or what the block raises.
    """
    # A client that has said hello may have sent a command, see `welcome` for the handshake.
    self._in_doubt = self._hello is not None
    self._accounts.touch(self._ticket, True)
    try:
      yield
    except (HungUpError, RefusedError):  # then there is no more than what was read
      self._in_doubt = False
      raise
    if not self._accounts.touch(self._ticket, False):
      raise DeniedError('this session was idle, and its place was needed')
    self._in_doubt = False

  def begun(self, told: Sequence[progress.Begun]) -> list[server_offline.Image | None]:
    """What the server has of images that a lost connection of this client left unfinished."""
    return self._store.resume([image.name for image in told], self._owner)

  def prepare(
    self,
    make: Callable[[], Iterator[ServerMaterial]],
    count: int,
    size: int,
    unfinished: Callable[[], Sequence[server_offline.Image]],
  ) -> None:
    """Keeps what `make()` gives; its memory is reserved before anything is made.

    Args:
      make: prepares so many inferences, and gives each as soon as it is ready.
      count: of inferences.
      size: bytes of each of them.
      unfinished: gives what was begun, to be kept for a while where the connection is lost.

    Raises:
      ProtocolError: the policy refuses it, there is no room, or the client failed.
    """
    self.asked = True
    counts = self._accounts.counts(self.visitor)
    self._ask(self._policy.prepare, counts, count, count * size)
    self._store.expire()
    ticket = self._accounts.reserve(visitors.BYTES, self.visitor, count * size)
    left = count
    try:
      for material in make():
        self._store.put(material, ticket, self._owner)
        left -= 1
      self._in_doubt = True  # the client has all that it waits for
    except LostError:
      # Those that are ready are in the store already.
      images = [i for i in unfinished() if i.material is None and any(i.begun.progress)]
      self._store.suspend(images, ticket, size, self._owner, idle=self.visitor.identity is None)
      left -= len(images)
      raise
    finally:
      self._accounts.release(ticket, left * size)

  @contextlib.contextmanager
  def take(self, identifiers: Sequence[bytes]) -> Iterator[list[ServerMaterial]]:
    """Preparations for as many predictions, which count from then on.

    Their memory stays reserved until the block ends.

    Raises:
      ProtocolError: the policy refuses it, or as for `ServerStore.take`. The preparations
        count as used all the same: their masked inputs are on the way.
    """
    self.asked = True
    self._in_doubt = True  # until what the command names is taken
    count = len(identifiers)
    # Counted first: of two sessions that ask at once, the second one sees the first one's.
    made = self._accounts.predictions(self.visitor, count) - count
    counts = self._accounts.counts(self.visitor)._replace(predictions=made)
    with contextlib.ExitStack() as stack:
      try:
        found = stack.enter_context(self._store.take(identifiers, self._owner))
        self._ask(self._policy.infer, counts, count)
      except ProtocolError:
        self._in_doubt = False
        self._accounts.predictions(self.visitor, -count)
        raise
      self._in_doubt = False
      yield found

  def end(self) -> None:
    """Gives up what this session holds.

    Preparations are kept for a client that has a directory, unless a command is in doubt: see
    `store`. Their memory may go to others if the client has no certificate.
    """
    if self._hello is not None:
      keep = self._hello.token is not None and not self._in_doubt
      self._store.leave(self._owner, keep=keep, idle=self.visitor.identity is None)

  @property
  def _owner(self) -> bytes:
    return self._hello.owner if self._hello else b''

  def _ask(self, method: Callable[..., None], *arguments) -> None:
    try:
      method(self.visitor, *arguments)
    except ProtocolError:
      raise
    except Exception:
      _LOGGER.exception('event=policy_error method=%s', method.__name__)
      raise DeniedError('an error of its own, which is in its log') from None
