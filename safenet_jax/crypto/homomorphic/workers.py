"""Processes that answer uploads together, each with a part of every layer.

The bindings of SEAL hold the interpreter lock, so a server needs one process for each
core that it wants to use. Each process prepares its part of every layer's output
channels, once. Together, the parts of a reply have the form of the reply that one
process would have sent.
"""

from collections.abc import Sequence
import multiprocessing
from multiprocessing import connection
import struct

import numpy as np

from safenet_jax.crypto.homomorphic import bfv, encrypted_convolution, packing
from safenet_jax.crypto.randomness import SystemRandomness

Layers = Sequence[tuple[packing.Convolution, np.ndarray]]

_KEY, _UPLOAD, _RESULT, _ERROR = b'K', b'U', b'R', b'E'
_NUMBER = struct.Struct('<Q')
_NUMBERS = struct.Struct('<QQ')


class Workers:
  """A pool of spawned processes; use it as a context manager or `close` it.

  The processes are spawned, not forked, and each makes its own source of randomness:
  two processes with one stream would reveal each other's masks.
  """

  def __init__(self, count: int, parameters: bfv.Parameters, layers: Layers):
    if count < 1:
      raise ValueError(f'{count} workers, want 1 or more')
    self._layers = layers
    self._pipes: list[connection.Connection] = []
    self._processes = []
    spawn = multiprocessing.get_context('spawn')
    for worker in range(count):
      ours, theirs = spawn.Pipe()
      process = spawn.Process(
        target=_serve, args=(theirs, worker, count, parameters, layers), daemon=True
      )
      process.start()
      theirs.close()
      self._pipes.append(ours)
      self._processes.append(process)

  def use_key(self, key: bytes) -> None:
    """Answers under this client's public key from now on.

    Raises:
      ValueError: it is not a public key.
    """
    self._ask(_KEY + key)

  def reply(self, layer: int, upload: bytes, tag: bytes) -> tuple[bytes, np.ndarray]:
    """`encrypted_convolution.reply` of a layer, by its index.

    Raises:
      ValueError: no such layer, no key yet, or the upload is malformed or belongs to
        another key, layer or tag.
    """
    if not 0 <= layer < len(self._layers):
      raise ValueError(f'layer {layer}, want 0 to {len(self._layers) - 1}')
    height, width, _ = self._layers[layer][0].output_shape
    messages, shares = [], []
    question = _UPLOAD + _NUMBERS.pack(layer, len(tag)) + tag + upload
    for result in self._ask(question):
      end = _NUMBER.size + _NUMBER.unpack_from(result)[0]
      share = np.frombuffer(result[_NUMBER.size : end], np.uint64)
      shares.append(share.reshape(height, width, -1))
      messages.append(result[end:])
    return b''.join(messages), np.concatenate(shares, axis=-1)

  def _ask(self, question: bytes) -> list[bytes]:
    for pipe in self._pipes:
      pipe.send_bytes(question)
    answers = [pipe.recv_bytes() for pipe in self._pipes]
    for answer in answers:
      if answer[:1] == _ERROR:
        raise ValueError(answer[1:].decode())
    return [answer[1:] for answer in answers]

  def close(self) -> None:
    """Ends the processes."""
    for pipe in self._pipes:
      pipe.close()
    for process in self._processes:
      process.join()

  def __enter__(self) -> 'Workers':
    return self

  def __exit__(self, *unused) -> None:
    self.close()


def _serve(
  pipe: connection.Connection,
  worker: int,
  count: int,
  parameters: bfv.Parameters,
  layers: Layers,
) -> None:
  """One worker: prepares its part of every layer, then answers until the end."""
  context = bfv.Context(parameters)
  randomness = SystemRandomness()
  parts = []
  for layer, kernel in layers:
    groups = packing.layout(layer, context.degree).outputs
    part = range(worker * groups // count, (worker + 1) * groups // count)
    parts.append(encrypted_convolution.prepare(context, layer, kernel, part))
  public = None
  while True:
    try:
      question = pipe.recv_bytes()
    except EOFError:
      return
    try:
      if question[:1] == _KEY:
        public = bfv.PublicKey(context, question[1:])
        answer = b''
      elif public is None:
        raise ValueError('an upload before the public key')
      else:
        layer_index, length = _NUMBERS.unpack_from(question, 1)
        start = 1 + _NUMBERS.size
        tag, upload = question[start : start + length], question[start + length :]
        message, share = encrypted_convolution.reply(
          public, parts[layer_index], upload, randomness, tag
        )
        answer = _NUMBER.pack(share.nbytes) + share.tobytes() + message
      pipe.send_bytes(_RESULT + answer)
    except ValueError as error:
      pipe.send_bytes(_ERROR + str(error).encode())
