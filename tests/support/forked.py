"""Commands of `experiments/` in forks of an interpreter that has imported what they need.

Importing takes more time than most commands do in tests. A fork is a process as any other: it has
arguments, streams and an exit code of its own, and starts JAX's threads itself. What imports read
of the environment, it has from the interpreter that was forked. So a command with another
environment gets a fresh one, and so does one that a test talks to or kills.
"""

import atexit
import gc
import json
import os
import pathlib
import runpy
import socket
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[2]
# pytest's own, which no command reads.
_UNREAD = 'PYTEST_CURRENT_TEST'


class _Original:
  """The process that is forked, and the environment that it started with."""

  def __init__(self):
    self.environment = _environment()
    self._socket, theirs = socket.socketpair()
    with theirs:
      self._process = subprocess.Popen(
        [sys.executable, '-m', 'tests.support.forked', str(theirs.fileno())],
        cwd=ROOT,
        pass_fds=[theirs.fileno()],
      )
    atexit.register(self.end)

  def run(self, arguments: list[str], streams: list[int]) -> int:
    """The exit code of a command; it writes to these two file descriptors."""
    socket.send_fds(self._socket, [json.dumps(arguments).encode()], streams)
    return json.loads(self._socket.recv(64))

  def end(self) -> None:
    self._socket.close()
    self._process.wait()


_originals: list[_Original] = []


def run(phase: str, *flags: str) -> subprocess.CompletedProcess[str]:
  """As `python -m experiments.<phase> FLAG...` in the root of the checkout."""
  if not _originals:
    _originals.append(_Original())
  if _originals[0].environment != _environment():
    return fresh(phase, *flags)
  with tempfile.TemporaryFile('w+') as output, tempfile.TemporaryFile('w+') as errors:
    code = _originals[0].run([phase, *map(str, flags)], [output.fileno(), errors.fileno()])
    texts = []
    for stream in (output, errors):
      stream.seek(0)
      texts.append(stream.read())
  return subprocess.CompletedProcess([phase, *flags], code, *texts)


def fresh(phase: str, *flags: str, environment=None) -> subprocess.CompletedProcess[str]:
  """The same in an interpreter of its own."""
  command = [sys.executable, '-m', f'experiments.{phase}', *flags]
  return subprocess.run(
    command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1000
  )


def _environment() -> dict[str, str]:
  return {name: value for name, value in os.environ.items() if name != _UNREAD}


def _import() -> None:
  """What most commands import; no module that defines flags of some commands only."""
  import matplotlib.figure
  import orbax.checkpoint

  from experiments.lib import from_config, launcher, scores, search_table, served_model
  from safenet_jax.protocol.service import client, server

  del matplotlib, orbax, from_config, launcher, scores, search_table, served_model, client, server


def _next(given: socket.socket) -> list[str]:
  """Forks for every request that comes; returns the arguments of one, in its fork."""
  while True:
    raw, streams, _, _ = socket.recv_fds(given, 1 << 16, 2)
    if not raw:
      sys.exit()  # the tests have ended
    gc.freeze()  # else a fork looks through all that was imported when it ends
    child = os.fork()
    if not child:
      for stream, place in zip(streams, (1, 2)):
        os.dup2(stream, place)
    for stream in streams:
      os.close(stream)
    if not child:
      given.close()
      return json.loads(raw)
    _, status = os.waitpid(child, 0)
    given.send(json.dumps(os.waitstatus_to_exitcode(status)).encode())


if __name__ == '__main__':
  with socket.socket(fileno=int(sys.argv[1])) as requests:
    _import()
    name, *rest = _next(requests)
  sys.argv[1:] = rest
  # Here, and not in a function, so that the interpreter ends as after any command.
  runpy.run_module(f'experiments.{name}', run_name='__main__', alter_sys=True)
