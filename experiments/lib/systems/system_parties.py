"""The two parties of one of `safenet_jax.systems`: processes that talk over TLS on this machine."""

from collections.abc import Callable
from concurrent import futures
import multiprocessing
import socket
import tempfile
from typing import Any, NamedTuple

from safenet_jax.console import process_memory
from safenet_jax.crypto.randomness import SystemRandomness
from safenet_jax.transport import ledger, tls
from safenet_jax.transport.channel import Channel, connect

# Of one message: a server may compute for minutes before it answers.
_TIMEOUT = 900.0
# In which both processes have to meet.
_START = 120.0
_HOST = '127.0.0.1'

# What a party does with its channel and `randomness`; picklable, as it runs in its own process.
Party = Callable[..., Any]


class Outcome(NamedTuple):
  """What the client got, the ledger of both parties, and the most bytes that each held."""

  answer: Any
  ledger: dict[str, Any]
  memory: dict[str, int]


def run(client: Party, server: Party) -> Outcome:
  """Runs both parties to their end; the error of one that failed."""
  context = multiprocessing.get_context('spawn')
  with tempfile.TemporaryDirectory() as folder, context.Manager() as manager:
    files = tls.insecure_test_certificate(folder)
    ports = manager.Queue()
    with futures.ProcessPoolExecutor(2, context) as pool:
      serving = pool.submit(_serve, server, files, ports)
      asking = pool.submit(_ask, client, files.certificate, ports)
      futures.wait([serving, asking], return_when=futures.FIRST_EXCEPTION)
      _, theirs, held = serving.result()
      answer, ours, used = asking.result()
  return Outcome(answer, ledger.join(ours, theirs), {'client': used, 'server': held})


def _serve(party: Party, files: tls.CertificateFiles, ports) -> tuple[Any, dict[str, Any], int]:
  with socket.create_server((_HOST, 0)) as listening:
    listening.settimeout(_START)
    ports.put(listening.getsockname()[1])
    accepted, _ = listening.accept()
  accepted.settimeout(None)
  secure = tls.server_context(*files).wrap_socket(accepted, server_side=True)
  return _finish(party, Channel(secure, party='server', timeout=_TIMEOUT))


def _ask(party: Party, certificate, ports) -> tuple[Any, dict[str, Any], int]:
  context = tls.client_context(certificate)
  return _finish(
    party, connect(_HOST, ports.get(timeout=_START), context=context, timeout=_TIMEOUT)
  )


def _finish(party: Party, channel: Channel) -> tuple[Any, dict[str, Any], int]:
  with channel:
    found = party(channel, randomness=SystemRandomness())
    channel.flush()
  return found, channel.ledger.record(), process_memory.memory().peak
