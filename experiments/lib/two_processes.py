"""Private inference by the commands of both parties: `safenet serve` and `safenet ask`.

Both are processes of their own without JAX, as they would be deployed. They talk over TLS on
this machine.
"""

from collections.abc import Iterator
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
from typing import Any, cast, IO, NamedTuple

import numpy as np

from safenet_jax.console import process_memory
from safenet_jax.fixed_point.model import FixedPointModel
from safenet_jax.protocol.service import bundle, sessions


class Answers(NamedTuple):
  """What the client got: classes [N] and its ledger; and the server's memory at the end.

  server_cpu: seconds of its process while it served.
  disk: the most bytes of the directory of the client's preparations, if it has one.
  """

  classes: list[int]
  ledger: dict[str, Any]
  server: process_memory.Memory
  server_cpu: float = 0.0
  disk: int = 0


def ask(
  model: FixedPointModel,
  images: np.ndarray,
  *,
  batch: int = 1,
  workers: int = 0,
  mode: str = sessions.DEFAULT,
  large: bool = False,
) -> Answers:
  """Private classes of images uint8 [N, H, W, C].

  Args:
    model: what the server gets.
    images: what the client gets.
    batch: images at once.
    workers: processes of the server for homomorphic encryption; with 0 its session computes.
    mode: in which the server serves it, of `sessions.MODES`.
    large: for networks of ImageNet's size. The client keeps preparations in a directory, and
      both parties stay below 8 GB.

  Raises:
    RuntimeError: a party failed; with its error.
  """
  with tempfile.TemporaryDirectory() as folder:
    root = pathlib.Path(folder)
    bundle.save(root / 'model', model)
    np.save(root / 'images.npy', images)
    with _process(
      'serve',
      f'--bundle={root / "model"}',
      f'--insecure-test-certificate={root}',
      '--host=127.0.0.1',
      '--port=0',
      f'--workers={workers}',
      f'--mode={mode}',
      *(['--memory-gib=4'] if large else []),
      log=root / 'serve.log',
    ) as server:
      output = cast(IO[str], server.stdout)
      authority = output.readline().partition('--ca=')[2].strip()
      port = output.readline().rpartition(':')[2].strip()
      if not port:
        raise RuntimeError(f'the server ended: {_last(root / "serve.log")}')
      begun = _cpu_seconds(server.pid)
      with (
        _process(
          'ask',
          '--host=127.0.0.1',
          f'--port={port}',
          f'--ca={authority}',
          f'--batch={batch}',
          f'--images={root / "images.npy"}',
          f'--out={root / "ledger.json"}',
          *(['--max-bytes-gib=16', '--max-memory-gib=7', f'--prepared={root}'] if large else []),
          log=root / 'ask.log',
        ) as client,
        _watched(root) as disk,
      ):
        found, _ = client.communicate()
      if client.returncode:
        raise RuntimeError(
          f'the client ended with code {client.returncode}: {_last(root / "ask.log")}'
        )
      memory, cpu = process_memory.memory(server.pid), _cpu_seconds(server.pid) - begun
    ledger = json.loads((root / 'ledger.json').read_text())
  return Answers([int(line) for line in found.split()], ledger, memory, cpu, max(disk))


def _cpu_seconds(pid: int) -> float:
  """Of all threads of a process so far."""
  # Fields 14 and 15 of proc(5), behind the name, which may have spaces.
  fields = pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
  return sum(map(int, fields[11:13])) / os.sysconf('SC_CLK_TCK')


@contextlib.contextmanager
def _watched(root: pathlib.Path) -> Iterator[list[int]]:
  """Bytes of preparations in a directory, every second while the block runs."""
  found, ended = [0], threading.Event()

  def watch():
    while not ended.wait(1.0):
      sizes = []
      for path in root.glob('*-*'):
        with contextlib.suppress(OSError):  # taken meanwhile
          sizes.append(path.stat().st_size)
      found.append(sum(sizes))

  thread = threading.Thread(target=watch, daemon=True)
  thread.start()
  try:
    yield found
  finally:
    ended.set()
    thread.join()


@contextlib.contextmanager
def _process(command: str, *flags: str, log: pathlib.Path) -> Iterator[subprocess.Popen]:
  """A command of `safenet`, which is killed if it is still there at the end of the block."""
  with (
    open(log, 'w') as errors,
    subprocess.Popen(
      [sys.executable, '-m', 'safenet_jax', command, *flags],
      stdout=subprocess.PIPE,
      stderr=errors,
      text=True,
    ) as process,
  ):
    try:
      yield process
    finally:
      process.kill()


def _last(log: pathlib.Path) -> str:
  """The last line of a log, which is that of the error."""
  return (log.read_text().splitlines() or ['it said nothing'])[-1]
