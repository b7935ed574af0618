"""A load test of a server: requests of one image each, by several client processes at once."""

from collections.abc import Callable, Sequence
import contextlib
import functools
import multiprocessing
from multiprocessing import connection
import signal
import ssl
import time
from typing import Any, NamedTuple

from absl import flags
import numpy as np

from safenet_jax.console import ask as asks
from safenet_jax.console import errors, process_memory, progress
from safenet_jax.protocol.service import client as clients
from safenet_jax.transport import ledger as ledgers
from safenet_jax.transport.frames import ProtocolError

REQUESTS = flags.DEFINE_integer(
  'requests',
  None,
  'Load test: so many inferences of one image each, shared by --clients. Prints how fast '
  'they are answered. In experiments.benchmark it adds the suite sustained.',
  lower_bound=1,
)
CLIENTS = flags.DEFINE_integer(
  'clients', 2, 'How many clients at once share --requests.', lower_bound=1
)
_PERCENTILES = 50, 95, 99


class Request(NamedTuple):
  """One answer: which image, its class, and the seconds of both phases."""

  image: int
  label: int
  offline: float
  online: float


class Load(NamedTuple):
  """What a load test found.

  requests: the answers.
  seconds: from the first request to the last answer.
  peaks: for each client's process the most memory it had, in bytes.
  """

  requests: list[Request]
  seconds: float
  peaks: list[int]

  def agreement(self, classes: Sequence[int]) -> int:
    """How many answers equal `classes`, which has one class for each image."""
    return sum(request.label == int(classes[request.image]) for request in self.requests)

  def steady(self) -> int:
    """How many answers equal the first answer for the same image."""
    first: dict[int, int] = {}
    return sum(
      request.label == first.setdefault(request.image, request.label) for request in self.requests
    )

  def quantities(self) -> dict[str, tuple[float, str]]:
    """Value and unit by name. `online_` is the online phase alone, `latency_` both phases."""
    found = {'requests_per_s': (len(self.requests) / self.seconds, '1/s')}
    online = np.array([request.online for request in self.requests])
    both = online + [request.offline for request in self.requests]
    for name, values in (('latency', both), ('online', online)):
      for percent, value in zip(_PERCENTILES, np.percentile(values, _PERCENTILES)):
        found[f'{name}_p{percent}_s'] = float(value), 's'
    found['client_peak_mb'] = max(self.peaks) / 1e6, 'MB'
    return found


def run(
  address: tuple[str, int],
  context: Callable[[], ssl.SSLContext | None],
  images: np.ndarray,
  *,
  requests: int,
  count: int,
  output: str = 'logits',
  done: Callable[[int], None] = lambda number: None,
) -> Load:
  """Sends requests for the images in turn.

  Args:
    address: host and port of the server.
    context: makes a client's TLS context; picklable.
    images: uint8 [N, H, W, C].
    requests, count: how many requests there are in all, and how many clients share them.
    output: what is asked for, of `structure.OUTPUTS`.
    done: called after each answer with the number of answers so far.

  Raises:
    ProtocolError: a client's session failed.
  """
  spawn = multiprocessing.get_context('spawn')
  pipes, processes = [], []
  try:
    for index in range(count):
      ours, theirs = spawn.Pipe()
      numbers = range(index, requests, count)
      processes.append(
        spawn.Process(
          target=_client, args=(theirs, address, context, images, numbers, output), daemon=True
        )
      )
      processes[-1].start()
      theirs.close()
      pipes.append(ours)
    for pipe in pipes:
      _receive(pipe)
    start = time.perf_counter()
    for pipe in pipes:
      _send(pipe, 'go')
    found: list[Request] = []
    while len(found) < requests:
      for ready in connection.wait(pipes):
        found.append(Request(*_receive(ready)))
        done(len(found))
    seconds = time.perf_counter() - start
    for pipe in pipes:
      _send(pipe, 'end')
    return Load(found, seconds, [_receive(pipe) for pipe in pipes])
  except BaseException:
    # The others may wait for the server, which may be what has failed.
    for process in processes:
      process.terminate()
    raise
  finally:
    for pipe in pipes:
      pipe.close()
    for process in processes:
      process.join()


def show(asking: asks.Asking, *, requests: int, count: int, labels: str | None) -> None:
  """Sends requests, prints how fast they were answered and how many answers agree.

  Args:
    asking: which server, and the images. The numbers are written to its file `out`, if given.
    requests, count: how many requests there are in all, and how many clients share them.
    labels: .npy file of integers [N], the right classes. Without it an answer agrees if it equals
      the first answer for the same image.

  Raises:
    ValueError: files that are not what they should be.
    ProtocolError: a client's session failed.
  """
  if asking.prepared is not None:
    raise ValueError('--prepared and --requests, want one: requests prepare and infer in turn')
  images, path = asks.read_images(asking), asks.output_file(asking)
  wanted = None if labels is None else _labels(labels, len(images), asking.count)
  with progress.bars(requests=requests) as advance:
    found = run(
      (asking.host, asking.port),
      functools.partial(asks.context, asking),
      images,
      requests=requests,
      count=count,
      output=asking.output,
      done=lambda number: advance('requests', 1),
    )
  quantities = found.quantities()
  for name, (value, unit) in quantities.items():
    print(f'{name}: {value:.4g} {unit}')
  agree = found.steady() if wanted is None else found.agreement(wanted)
  kind = 'what their image got first' if wanted is None else 'the labels'
  print(f'ask: {agree} of {requests} answers to {count} clients are {kind}')
  if path:
    about = {'mode': 'load', 'requests': requests, 'clients': count, 'agree': agree}
    about |= {'seconds': found.seconds, 'compared_with': kind}
    ledgers.save({name: value for name, (value, _) in quantities.items()} | about, path)


def _labels(path: str, images: int, first: int | None) -> list[int]:
  """One label for each image, out of a file with those of all or of the `first` images."""
  labels = asks.read_array(path)
  found = labels if first is None or not labels.ndim else labels[:first]
  if labels.dtype.kind not in 'iu' or found.shape != (images,):
    raise ValueError(
      f'{path} holds {labels.dtype} {labels.shape}, want an integer for each of {images} images'
    )
  return found.tolist()


def _send(pipe, word: str) -> None:
  with contextlib.suppress(BrokenPipeError):  # `_receive` says why the client is gone
    pipe.send(word)


def _receive(pipe) -> Any:
  try:
    found = pipe.recv()
  except (EOFError, ConnectionResetError):
    raise ProtocolError('a client of the load test ended without an answer') from None
  if isinstance(found, str):
    raise ProtocolError(found)
  return found


def _client(pipe, address, context, images: np.ndarray, numbers: range, output: str) -> None:
  """A client's process. One inference makes keys and buffers, then come the timed requests."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
  try:
    _ask(pipe, address, context, images, numbers, output)
  except EOFError:  # another client failed
    return
  except errors.USER_ERRORS as error:
    with contextlib.suppress(OSError):  # then nobody is there to tell
      pipe.send(errors.line(error))


def _ask(pipe, address, context, images: np.ndarray, numbers: range, output: str) -> None:
  with clients.Client(*address, context=context(), output=output) as client:
    client.infer(images[:1])
    pipe.send(True)
    pipe.recv()
    for number in numbers:
      image = number % len(images)
      start = time.perf_counter()
      client.prepare(1)
      prepared = time.perf_counter()
      (found,) = client.infer(images[image : image + 1])
      end = time.perf_counter()
      label = int(found if output != 'logits' else found.argmax())
      pipe.send((image, label, prepared - start, end - prepared))
  pipe.recv()
  pipe.send(process_memory.memory().peak)
