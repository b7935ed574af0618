"""What an honest client gets of an open server while others attack it, on the loopback.

The attackers are a process of their own, at the addresses 127.0.0.2 and 127.0.0.3. They are
bounded in number and time, and go away with the measurement. The honest client is at 127.0.0.1. It
connects, prepares and infers one image, and says goodbye, one time after another. Attacks are:

- `none`: nobody attacks;
- `silent`: 64 TCP connections that say nothing, and ten more every second;
- `idle`: eight sessions that ask for nothing, opened again as soon as they are closed;
- `stalled`: two sessions that ask for a preparation, and then say nothing;
- `abandoned`: clients that prepare ten inferences, as many as the server has room for, and leave;
- `refused`: two clients that ask again and again for more than there is room for.

Rows are `attacks/<attack>/<quantity>`:

- `answered`: the share of requests that were answered within ten seconds;
- `p50_s`, `max_s`: seconds of a request that was answered;
- `server_cpu`: CPU seconds of the server in a second;
- `server_peak_mb`: the most memory of the server's process.
"""

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import itertools
import multiprocessing
import pathlib
import socket
import ssl
import tempfile
import threading
import time
from typing import Any

import numpy as np

from experiments import benchmarks
from experiments.benchmarks import inference, Row
from safenet_jax.approximation import plans
from safenet_jax.console import process_memory
from safenet_jax.models import architectures
from safenet_jax.protocol.delphi.mode import DELPHI
from safenet_jax.protocol.layers.structure import Structure
from safenet_jax.protocol.service import bundle, commands, handshake
from safenet_jax.protocol.service import client as clients
from safenet_jax.protocol.service import server as servers
from safenet_jax.transport import channel as channels
from safenet_jax.transport import tls
from safenet_jax.transport.frames import ProtocolError

_HOST, _ADDRESSES = '127.0.0.1', ('127.0.0.2', '127.0.0.3')
_WIDTH, _ROOM, _TIMEOUT = 0.125, 10, 10.0
_SECONDS, _REQUESTS = 20.0, 40


@dataclasses.dataclass(frozen=True)
class _Target:
  """Whom the attackers attack: a port, and the file of its certificate."""

  port: int
  authority: str

  @property
  def context(self) -> ssl.SSLContext:
    return tls.client_context(self.authority)

  def client(self) -> clients.Client:
    return clients.Client(_HOST, self.port, context=self.context, timeout=_TIMEOUT)


def rows() -> Iterator[Row]:
  quick = benchmarks.QUICK.value
  network = architectures.build(inference.NETWORK, width=_WIDTH)
  model = inference.random_model(network, plans.from_twentieths(*inference.PLANS['channel_80']))
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder, 'model')
    bundle.save(path, model)
    files = tls.insecure_test_certificate(folder)
    for name in ('none', *ATTACKS):
      found, reason = _measure(name, path, files, 2.0 if quick else _SECONDS)
      setting = f'{inference.NETWORK} at width {_WIDTH:g}, room for {_ROOM}, loopback, TLS{reason}'
      for quantity, (value, unit) in found.items():
        yield Row('attacks', f'attacks/{name}/{quantity}', setting, value, unit)


def _measure(
  name: str, path: pathlib.Path, files: tls.CertificateFiles, seconds: float
) -> tuple[dict[str, tuple[float, str]], str]:
  """Value and unit of each quantity, and what was told with the last request that failed."""
  with _process(_serve, str(path), files) as (server, pipe):
    port, shape = pipe.recv()
    target = _Target(port, str(files.certificate))
    image = np.zeros((1, *shape), np.uint8)
    _request(target, image)  # the first one makes buffers
    attack = contextlib.nullcontext() if name == 'none' else _process(_attack, name, target)
    took, failed, reason = list[float](), 0, ''
    with attack as attackers:
      if attackers is not None:
        attackers[1].recv()
      busy, start = _cpu_seconds(server.pid), time.perf_counter()
      while time.perf_counter() - start < seconds and len(took) < _REQUESTS:
        begun = time.perf_counter()
        try:
          _request(target, image)
          took.append(time.perf_counter() - begun)
        except ProtocolError as error:
          failed += 1
          reason = f'; at last: {error}'
        time.sleep(0.1)
      wall = time.perf_counter() - start
      busy = _cpu_seconds(server.pid) - busy
    found = {
      'answered': (len(took) / (len(took) + failed), 'share'),
      'server_cpu': (busy / wall, 'CPU s/s'),
      'server_peak_mb': (process_memory.memory(server.pid).peak / 1e6, 'MB'),
    }
  if took:
    found |= {'p50_s': (float(np.median(took)), 's'), 'max_s': (max(took), 's')}
  return found, reason


def _request(target: _Target, image: np.ndarray) -> None:
  with target.client() as client:
    client.infer(image)


def _cpu_seconds(pid: int) -> float:
  """Of a process so far, from Linux's /proc; in hundredths."""
  fields = pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
  return (int(fields[11]) + int(fields[12])) / 100


@contextlib.contextmanager
def _process(target: Callable[..., None], *arguments) -> Iterator[tuple[Any, Any]]:
  """A process and a pipe to it, which is closed at the end of the block for it to end."""
  spawn = multiprocessing.get_context('spawn')
  ours, theirs = spawn.Pipe()
  process = spawn.Process(target=target, args=(theirs, *arguments), daemon=True)
  process.start()
  theirs.close()
  try:
    yield process, ours
  finally:
    ours.close()
    process.join(30)
    process.kill()


def _serve(pipe, path: str, files: tls.CertificateFiles) -> None:
  """The server's process, with room for so many preparations of logits."""
  model = bundle.load(path)
  material = DELPHI.server_material
  room = _ROOM * material.size(Structure.of(model.public), 'logits')
  options = servers.ServerOptions(mode=DELPHI.name, outputs=('logits',), memory_bytes=room)
  context = tls.server_context(*files)
  with servers.Server(model, context=context, options=options) as server:
    pipe.send((server.address[1], model.public.input_shape))
    with contextlib.suppress(EOFError):
      pipe.recv()
    server.close(0.0)


def _attack(pipe, name: str, target: _Target) -> None:
  """The attackers' process: threads until the pipe is closed; says when all have begun."""
  places = itertools.cycle(_ADDRESSES)
  connect = socket.create_connection

  def elsewhere(address, timeout=None):
    return connect(address, timeout, source_address=(next(places), 0))

  socket.create_connection = elsewhere  # type: ignore[assignment]
  count, act = ATTACKS[name]
  stopped, begun = threading.Event(), threading.Semaphore(0)

  def repeat():
    while not stopped.is_set():
      with contextlib.suppress(ProtocolError, OSError):
        act(target, begun.release)
      stopped.wait(0.05)

  for _ in range(count):
    threading.Thread(target=repeat, daemon=True).start()
  for _ in range(count):
    begun.acquire(timeout=_TIMEOUT)
  pipe.send(True)
  with contextlib.suppress(EOFError):
    pipe.recv()
  stopped.set()


def _silent(target: _Target, begun: Callable[[], None]) -> None:
  """One connection that is held until the server closes it, at most for ten seconds."""
  with socket.create_connection((_HOST, target.port), _TIMEOUT) as sock:
    begun()
    sock.settimeout(6.4)  # 64 of them are ten a second
    sock.recv(1)


def _idle(target: _Target, begun: Callable[[], None]) -> None:
  with channels.connect(_HOST, target.port, context=target.context, timeout=60.0) as channel:
    handshake.client(channel)
    begun()
    channel.receive('nothing')


def _stalled(target: _Target, begun: Callable[[], None]) -> None:
  with channels.connect(_HOST, target.port, context=target.context, timeout=60.0) as channel:
    handshake.client(channel)
    commands.send(channel, commands.Command(commands.PREPARE, 1))
    begun()
    channel.receive('nothing')


def _abandoned(target: _Target, begun: Callable[[], None]) -> None:
  for _ in range(_ROOM):
    with target.client() as client:
      client.prepare(1)
  begun()


def _refused(target: _Target, begun: Callable[[], None]) -> None:
  with target.client() as client:
    begun()
    client.prepare(_ROOM + 1)


# How many threads do what.
ATTACKS: dict[str, tuple[int, Callable[[_Target, Callable[[], None]], None]]] = {
  'silent': (64, _silent),
  'idle': (8, _idle),
  'stalled': (2, _stalled),
  'abandoned': (1, _abandoned),
  'refused': (2, _refused),
}
