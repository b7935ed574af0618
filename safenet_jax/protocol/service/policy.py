"""What an operator allows: asked before a client gets a session, a preparation, an inference."""

from safenet_jax.transport.accounts import Counts, DeniedError, Visitor


class Policy:
  """Allows what the limits of `ServerOptions` allow, and so many predictions a day.

  Subclass it to refuse more, or to write down who asks for what:

    class Members(Policy):
      def connect(self, visitor, counts):
        if visitor.identity not in MEMBERS:
          raise DeniedError('not a member')

  Methods are called in the threads of the sessions, several at once. One that raises ends the
  request that it was asked about, and with it the session. The line of a `DeniedError` is told
  to the client; of other errors it learns only that there was one, and the server logs them.
  """

  def __init__(self, predictions_per_day: int | None = None):
    """Takes the most predictions of one visitor in a day (UTC); None for any number.

    A visitor is a certificate, or without it an address.

    Raises:
      ValueError: a number below 0.
    """
    if predictions_per_day is not None and predictions_per_day < 0:
      raise ValueError(f'{predictions_per_day} predictions per day, want at least 0')
    self.predictions_per_day = predictions_per_day

  def connect(self, visitor: Visitor, counts: Counts) -> None:
    """Asked after the TLS handshake, before the first message.

    Args:
      visitor: who it is; without its token, which comes with the first message.
      counts: what it holds, with this session.
    """
    del visitor, counts

  def prepare(self, visitor: Visitor, counts: Counts, count: int, size: int) -> None:
    """Asked before inferences are prepared.

    Args:
      visitor: who asks.
      counts: what it holds.
      count: how many are to be prepared.
      size: how many bytes the server will keep of them.
    """
    del size
    self._within(counts.predictions, count)

  def infer(self, visitor: Visitor, counts: Counts, count: int) -> None:
    """Asked before predictions are made.

    Args:
      visitor: who asks.
      counts: what it holds; its predictions are those that were made before.
      count: how many are to be made.
    """
    del visitor
    self._within(counts.predictions, count)

  def _within(self, made: int, count: int) -> None:
    most = self.predictions_per_day
    if most is not None and made + count > most:
      raise DeniedError(f'{made} predictions today and {count} more, {most} a day is the limit')
