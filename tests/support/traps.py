"""A layer that harms the worker processes that reply for it, as long as a file says so."""

import os
import pathlib
import signal

from safenet_jax.crypto.homomorphic import packing


class Convolution(packing.Convolution):
  """Its text is a part of every reply's identifiers, so that a reply sets the trap off.

  The file `trap` says how: it holds `raise`, `end`, or `end once`. This process is safe.
  """

  def __init__(self, trap: pathlib.Path, *args):
    super().__init__(*args)
    self.__dict__.update(_trap=trap, _maker=os.getpid())

  def __repr__(self):
    trap = self._trap
    deed = trap.read_text() if os.getpid() != self._maker and trap.exists() else ''
    if deed == 'raise':
      raise RuntimeError('result ciphertext is transparent')  # as SEAL does
    if deed == 'end once':
      trap.unlink()
    if deed:
      os.kill(os.getpid(), signal.SIGKILL)
    return super().__repr__()
