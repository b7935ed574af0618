"""What a user can mend is one line; anything else is a bug and keeps its trace."""

from safenet_jax.transport.frames import ProtocolError

# OverflowError is that of a port or a size beyond what the system takes.
USER_ERRORS = ValueError, OSError, OverflowError, ProtocolError


def line(error: BaseException) -> str:
  """An error in one line, without the number that the system gives it."""
  text = str(error)
  if isinstance(error, OSError) and error.strerror:
    text = f'{error.filename}: {error.strerror}' if error.filename else error.strerror
  return ' '.join(text.split()) or type(error).__name__
