"""Errors that a user can mend are shown in one line; any other is a bug and keeps its trace."""

from safenet_jax.transport.frames import ProtocolError

# The system raises OverflowError for a port or a size that is too large for it.
USER_ERRORS = ValueError, OSError, OverflowError, ProtocolError


def line(error: BaseException) -> str:
  """An error in one line, without the system's error number."""
  text = str(error)
  if isinstance(error, OSError) and error.strerror:
    # Of a socket that cannot listen, Python adds the address once more, in parentheses.
    text = error.strerror.partition(' (while ')[0]
    if isinstance(error, FileExistsError):
      text = 'a file of this name is there, want a directory'
    text = f'{error.filename}: {text}' if error.filename else text
  return ' '.join(text.split()) or type(error).__name__
