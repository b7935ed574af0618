"""A record of everything that serves once, by both parties and across their deaths."""

import collections
import hashlib
import os
import pathlib

import numpy as np
import pytest

from safenet_jax.crypto.garbled_circuits import garbling
from safenet_jax.crypto.oblivious_transfer import word_transfer
from safenet_jax.protocol.delphi import material


class Journal:
  """A file with a line for each use: who, of what, and a digest of the secret.

  Lines are appended by the kernel, whole: a process that is killed leaves all it wrote.
  """

  def __init__(self, path: pathlib.Path):
    self._path = path
    self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

  def record(self, use: str, *secrets) -> None:
    digest = hashlib.sha256()
    for secret in secrets:
      digest.update(secret if isinstance(secret, bytes) else np.ascontiguousarray(secret).data)
    os.write(self._file, f'{use} {digest.hexdigest()[:32]}\n'.encode())

  def uses(self) -> collections.Counter:
    """How often each line is there."""
    return collections.Counter(self._path.read_text().splitlines())

  def repeated(self) -> set[str]:
    """Kinds of what was used twice."""
    return {line.rpartition(' ')[0] for line, times in self.uses().items() if times > 1}

  def kinds(self) -> collections.Counter:
    """How many uses of each kind there are."""
    return collections.Counter(line.rpartition(' ')[0] for line in self.uses().elements())

  def watch(self, patch: pytest.MonkeyPatch) -> None:
    """From here on this process writes down what it uses."""
    spend, spend_pads = material._Once.spend, word_transfer.Pads.spend
    evaluate, encode = garbling.Evaluator.evaluate, garbling.Encoding.labels

    def preparation(it, output):
      spend(it, output)
      self.record(f'{_party(it)} preparation', it.identifier)
      if isinstance(it, material.ClientMaterial) and it.mask.size:
        self.record('client mask', it.mask)

    def pads(it):
      spend_pads(it)
      self.record('pads', it.words, it.identifier)

    def block(it, garbled, labels):
      self.record('client block', garbled.seed, garbled.check)
      return evaluate(it, garbled, labels)

    def labels(it, name, bits):
      self.record(f'server labels of {name}', it.output_labels)
      return encode(it, name, bits)

    patch.setattr(material._Once, 'spend', preparation)
    patch.setattr(word_transfer.Pads, 'spend', pads)
    patch.setattr(garbling.Evaluator, 'evaluate', block)
    patch.setattr(garbling.Encoding, 'labels', labels)


def _party(it):
  return 'client' if isinstance(it, material.ClientMaterial) else 'server'
