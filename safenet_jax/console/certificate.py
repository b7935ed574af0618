"""`safenet certificate`: writes an insecure certificate for tests."""

import argparse
import os

from safenet_jax.console import options
from safenet_jax.transport import tls

USAGE = 'DIR [--host=NAME ...]'
DESCRIPTION = (
  'Writes a certificate that signs itself and its private key into a directory. It is '
  'INSECURE and for tests only: nobody vouches for it, its key is not encrypted, and it is '
  'good for a week. A service needs a certificate of an authority that its clients trust.'
)


def add_options(parser: argparse.ArgumentParser) -> None:
  """The options of the command."""
  parser.add_argument(
    'directory', type=options.text, metavar='DIR', help='where to write both files'
  )
  parser.add_argument(
    '--host',
    metavar='NAME',
    action='append',
    help='name or address of the server, may be repeated; this machine by default',
  )


def run(arguments: argparse.Namespace) -> None:
  """Writes certificate and key and says how to use them; ValueError for a malformed host."""
  directory = os.path.expanduser(arguments.directory)
  hosts = (tuple(arguments.host),) if arguments.host else ()
  files = tls.insecure_test_certificate(directory, *hosts)
  print('certificate: INSECURE, for tests only, good for a week')
  print(f'server: --certificate={files.certificate} --key={files.key}')
  print(f'client: --ca={files.certificate}')
