"""What the commands of two parties share: flags. JAX is not needed here."""

import pathlib

from absl import flags

HOST = flags.DEFINE_string('host', None, 'Address of the server, or to serve at.')
PORT = flags.DEFINE_integer('port', 7341, 'Port of the server; serve: 0 takes a free one.')
CERTIFICATE = flags.DEFINE_string('certificate', None, 'PEM file of this party, with --key.')
KEY = flags.DEFINE_string('key', None, 'PEM file of the private key of --certificate.')
CA = flags.DEFINE_string(
  'ca', None, "PEM file of the authorities to trust, instead of the system's."
)
IN_THE_CLEAR = flags.DEFINE_bool('insecure_clear', False, 'Without TLS: for measurements only.')


def asked(name: str, argv: list[str]) -> bool:
  """Whether a flag is on a command line."""
  return any(a.lstrip('-').partition('=')[0] == name for a in argv)


def needed(name: str, value: str | None) -> pathlib.Path:
  """The path in a flag that has to be given."""
  if not value:
    raise ValueError(f'no --{name}, want a file (or --insecure_clear to go without TLS)')
  return pathlib.Path(value)
