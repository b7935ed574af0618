"""Processes draw other secrets than their parent; nothing here imports JAX, which must not fork."""

import itertools
import multiprocessing
import sys
import types

import numpy as np

from safenet_jax.crypto.garbled_circuits import garbling
from safenet_jax.crypto.oblivious_transfer import base_transfer
from safenet_jax.crypto.randomness import SystemRandomness
from safenet_jax.fixed_point import formats
from safenet_jax.fixed_point.rings import Rings
from safenet_jax.protocol.delphi import client_offline
from safenet_jax.protocol.layers import relu
from safenet_jax.protocol.layers.structure import ActivationStructure, Structure
from tests.support import fresh

FORM = formats.ActivationFormat(
  relu=4,
  polynomial=0,
  degree=0,
  map_shape=(4, 4),
  input_fraction=15,
  sign_bits=24,
  select_bits=28,
  shift=0,
  modulus=0,
  value_fraction=0,
  output_fraction=8,
)
STRUCTURE = Structure(
  bits=56,
  rings=Rings({}, {'input': 56, 'activation0': 56}, 56),
  input_shape=(8, 8, 2),
  linear={},
  shapes={},
  waves=(),
  drawn={},
  activations=(ActivationStructure('activation0', FORM, 56, 0),),
  logits=3,
  comparisons={},
)


class InsecureForked(SystemRandomness):
  """Without the check of the process: a child goes on with its parent's stream."""

  def fill(self, out):
    super(SystemRandomness, self).fill(out)


def draw(pipe, source):
  """Sends some of every kind of secret that a party draws."""
  source = source or SystemRandomness()
  party = types.SimpleNamespace(
    channel=None,
    structure=STRUCTURE,
    keys=types.SimpleNamespace(nonce=b'', numbers=itertools.count()),
    randomness=source,
  )
  image = client_offline.Image(party, 'logits')
  delta = garbling.fresh_delta(source)
  _, encoding = garbling.Garbler(relu.circuit(FORM), 64, source, delta).garble()
  labels = encoding.labels('server', np.zeros((17, 8), np.uint8))
  secrets = [
    image.mask,
    *image.masks.values(),
    delta,
    labels,
    encoding.output_labels,
    source.residues(97, 64),
    source.bits(128),
  ]
  pipe.send_bytes(base_transfer.announce(source)[1])
  for secret in secrets:
    pipe.send_bytes(np.ascontiguousarray(secret).tobytes()[:1024])


DRAWS = 8


def drawn(source):
  """What two forked children, a spawned process and this one draw, kind by kind."""
  found = []
  for method, handed in (('fork', source), ('fork', source), ('spawn', None)):
    context = multiprocessing.get_context(method)
    ours, theirs = context.Pipe()
    child = context.Process(target=draw, args=(theirs, handed))
    child.start()
    theirs.close()  # a child that fails ends the wait
    found.append([ours.recv_bytes() for _ in range(DRAWS)])
    child.join()
  ours, theirs = multiprocessing.Pipe()
  draw(theirs, source)
  assert not theirs.poll()
  found.append([ours.recv_bytes() for _ in range(DRAWS)])
  assert not ours.poll()
  return list(zip(*found))


def test_forked_and_spawned_processes_draw_other_masks_labels_and_keys():
  fresh.run(check_processes)


def check_processes():
  assert 'jax' not in sys.modules
  source = SystemRandomness()
  source.bytes(1)
  assert [len(set(kind)) for kind in drawn(source)] == [4] * DRAWS
  bare = InsecureForked()
  bare.bytes(1)
  # Both children and the parent the same, and only the spawned process another.
  assert [len(set(kind)) for kind in drawn(bare)] == [2] * DRAWS
