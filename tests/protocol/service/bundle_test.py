"""A model in a file comes back, and no other file does."""

import dataclasses
import hashlib
import os
import pickle
import stat
import struct
import subprocess
import sys

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

import safenet_jax
from safenet_jax.approximation import plans
from safenet_jax.models import network as networks
from safenet_jax.protocol.estimate import untrained
from safenet_jax.protocol.service import bundle as bundles
from safenet_jax.protocol.service import server as servers
from safenet_jax.transport import record_codec
from tests.support import fresh, models
from tests.support import networks as small

PREFIX = struct.Struct('>8sII')


def residual():
  """With shortcuts, general squares, cubics, and pruned channels."""
  net = networks.Network(small.NETWORKS['padded'], small.SHAPE)
  return untrained.model(net, plans.from_twentieths([10] * 5, [0, 2, 3, 2, 2]))


def pooled():
  """With max pools and a dense layer on a map."""
  net = networks.Network(small.VGG, small.SHAPE)
  return untrained.model(net, plans.from_twentieths([0, 10, 10, 10], [0, 2, 0, 3]))


def assert_equal(found, wanted):
  assert found.public == wanted.public
  assert list(found.linear) == list(wanted.linear)
  for name, weights in wanted.linear.items():
    for ours, theirs in zip(dataclasses.astuple(found.linear[name]), dataclasses.astuple(weights)):
      np.testing.assert_array_equal(ours, theirs)
      assert getattr(ours, 'dtype', None) == getattr(theirs, 'dtype', None)
  assert found.polynomials.keys() == wanted.polynomials.keys()
  for name, coefficients in wanted.polynomials.items():
    np.testing.assert_array_equal(found.polynomials[name], coefficients, strict=True)


@pytest.mark.parametrize('build', [models.calibrated, residual, pooled])
def test_a_model_comes_back_whole(build, tmp_path):
  model = build()
  safenet_jax.save_bundle(tmp_path / 'a', model)
  found = safenet_jax.load_bundle(tmp_path / 'a')
  assert_equal(found, model)
  images = small.IMAGES[:4]
  np.testing.assert_array_equal(found.run(images), model.run(images))
  bundles.save(tmp_path / 'b', found)
  assert (tmp_path / 'a').read_bytes() == (tmp_path / 'b').read_bytes()


def test_a_file_is_its_owners_alone_and_old_or_new(tmp_path, monkeypatch):
  path, model = tmp_path / 'model.safenet', models.calibrated()
  path.write_text('old')
  path.chmod(0o644)
  replace = os.replace

  def fail(*names):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(os, 'replace', fail)
  with pytest.raises(ValueError, match='model.safenet cannot be written: No space left'):
    bundles.save(path, model)
  assert list(tmp_path.iterdir()) == [path] and path.read_text() == 'old'
  monkeypatch.setattr(os, 'replace', replace)
  old = os.umask(0)
  try:
    bundles.save(path, model)
  finally:
    os.umask(old)
  assert list(tmp_path.iterdir()) == [path]
  assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_no_weight_is_stored_wider_than_it_is(tmp_path):
  path, model = tmp_path / 'model', models.calibrated()
  bundles.save(path, model)
  weights = sum(w.kernel.size for w in model.linear.values())
  biases = sum(w.bias.size for w in model.linear.values())
  # 15 bits; a folded row may have more.
  assert path.stat().st_size < 2 * weights + 8 * biases + 3000


@pytest.fixture(scope='module')
def raw(tmp_path_factory):
  path = tmp_path_factory.mktemp('raw') / 'model'
  bundles.save(path, models.calibrated())
  return path.read_bytes()


def refused(tmp_path, data, match):
  path = tmp_path / 'model.safenet'
  path.write_bytes(data)
  with pytest.raises(ValueError, match=match) as error:
    bundles.load(path)
  text = str(error.value)
  assert text.startswith(f'{path} ') and '\n' not in text and len(text) < 400
  path.unlink()


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_a_damaged_file_is_refused(tmp_path_factory, raw, data):
  place = data.draw(st.integers(0, len(raw) - 1))
  damaged = bytearray(raw)
  damaged[place] ^= data.draw(st.integers(1, 255))
  path = tmp_path_factory.getbasetemp()
  refused(path, bytes(damaged), 'is no model to serve: ')
  refused(path, raw[:place], 'cut short|header of|not msgpack')
  refused(path, raw + raw[: 1 + place], 'cut short')


@pytest.mark.parametrize(
  'data, match',
  [
    (b'', 'not a model bundle'),
    (pickle.dumps({'layers': ()}), 'not a model bundle'),
    (PREFIX.pack(b'safenet\0', 2, 10) + bytes(10), 'version 2 of the format, want 4'),
    (PREFIX.pack(b'safenet\0', 4, 1 << 31) + bytes(10), 'a header of 2147483648 bytes in a file'),
    (PREFIX.pack(b'safenet\0', 4, 10) + b'\xc1' * 42, 'not msgpack'),
    (PREFIX.pack(b'safenet\0', 4, 10) + b'\x90' * 42, 'Bundle|not msgpack'),
  ],
)
def test_a_foreign_file_is_refused(tmp_path, data, match):
  refused(tmp_path, data, match)


def test_a_header_is_not_read_that_is_longer_than_any(tmp_path):
  length = (1 << 20) + 1
  data = PREFIX.pack(b'safenet\0', 4, length) + bytes(2 * length)
  refused(tmp_path, data, f'a header of {length} bytes in a file')


def test_what_is_no_file_is_one_line(tmp_path):
  with pytest.raises(FileNotFoundError, match='no model bundle at '):
    bundles.load(tmp_path / 'none')
  with pytest.raises(ValueError, match='cannot be read: Is a directory'):
    bundles.load(tmp_path)
  with pytest.raises(ValueError, match='cannot be written: No such file or directory'):
    bundles.save(tmp_path / 'none' / 'model', models.calibrated())


def forged(raw, change, body=None):
  """A file whose sizes and checksum are right, and whose header somebody wrote."""
  length = PREFIX.unpack_from(raw)[2]
  header = record_codec.msgpack.unpackb(raw[PREFIX.size :][:length])
  change(header[1]['model'][1], header[1]['arrays'])
  packed = record_codec.msgpack.packb(header)
  body = raw[PREFIX.size + length : -32] if body is None else body
  found = PREFIX.pack(b'safenet\0', 4, len(packed)) + packed + body
  return found + hashlib.sha256(found).digest()


def test_the_forgery_is_one_that_loads(tmp_path, raw):
  path = tmp_path / 'model'
  path.write_bytes(forged(raw, lambda model, arrays: None))
  assert_equal(bundles.load(path), models.calibrated())


@pytest.mark.parametrize(
  'change, match',
  [
    (lambda model, arrays: arrays[0][1].update(dtype='object'), "of dtype 'object', want one of"),
    (lambda model, arrays: arrays[0][1].update(dtype='int8'), "of dtype 'int8', want one of"),
    (lambda model, arrays: arrays[0][1].update(shape=[3, 3, 2, 7]), r'\(3, 3, 2, 7\), want \(3, 3'),
    (lambda model, arrays: arrays[0][1].update(shape=[-1]), r'of shape \(-1,\), want'),
    (lambda model, arrays: arrays.pop(), 'arrays, want '),
    (lambda model, arrays: arrays.reverse(), 'in another order'),
    (lambda model, arrays: arrays[1][1].update(dtype='int64'), 'a file of .* bytes, want '),
    (lambda model, arrays: model.update(polynomials={'a': [1]}), 'other fields .* polynomials'),
    (lambda model, arrays: model.update(linear={'a': ['LinearWeights', {}]}), 'fields .* linear'),
    (lambda model, arrays: model.update(input_fraction=10**4), 'fraction bits'),
    (lambda model, arrays: model['precision'][1].update(ring=64), 'a ring of 64 bits'),
    (lambda model, arrays: model['layers'][0][1].update(features=0), 'Conv with features 0'),
    (lambda model, arrays: model['activations'].pop('activation0'), 'formats of other activations'),
    (lambda model, arrays: model.pop('mean'), 'PublicModel with other fields'),
    (lambda model, arrays: model['layers'].pop(1), 'formats of other activations'),
  ],
)
def test_a_forged_header_is_refused(tmp_path, raw, change, match):
  refused(tmp_path, forged(raw, change), match)


def test_values_beyond_their_bounds_are_refused_on_both_ways(tmp_path):
  model = models.calibrated()

  def with_kernel(value):
    weights = model.linear['conv0']
    kernel = weights.kernel.copy()
    kernel[0, 0, 0, 0] = value
    return dataclasses.replace(
      model, linear=model.linear | {'conv0': dataclasses.replace(weights, kernel=kernel)}
    )

  def with_coefficient(row, value):
    coefficients = model.polynomials['activation0'].copy()
    coefficients[row, 0] = value
    return dataclasses.replace(model, polynomials={'activation0': coefficients})

  modulus = model.public.activations['activation0'].modulus
  for found, match in (
    (with_kernel(1 << 54), 'conv0/kernel from .* want below 18014398509481984'),
    (with_kernel(-(1 << 54)), 'conv0/kernel from -18014398509481984'),
    (with_coefficient(0, modulus), f'activation0/coefficients .* want below {modulus}'),
    (with_coefficient(2, 2), 'leading coefficients other than the 1'),
    (dataclasses.replace(model, polynomials={}), 'activation0/coefficients is missing'),
    (
      dataclasses.replace(model, linear=model.linear | {'conv9': model.linear['conv0']}),
      'do not exist: conv9/bias, conv9/kernel',
    ),
  ):
    with pytest.raises(ValueError, match=match):
      bundles.save(tmp_path / 'model', found)
  assert not list(tmp_path.iterdir())


def test_values_are_checked_on_loading_too(tmp_path, monkeypatch):
  model = models.calibrated()
  coefficients = model.polynomials['activation0'].copy()
  coefficients[2, 0] = 2
  with monkeypatch.context() as patch:
    patch.setattr(bundles, '_check_values', lambda *_: None)
    bundles.save(
      tmp_path / 'a', dataclasses.replace(model, polynomials={'activation0': coefficients})
    )
  refused(tmp_path, (tmp_path / 'a').read_bytes(), 'leading coefficients other than the 1')


def test_every_server_of_a_bundle_draws_its_own_model_id(tmp_path):
  bundles.save(tmp_path / 'model', models.calibrated())
  found = set()
  for _ in range(2):
    with servers.Server(bundles.load(tmp_path / 'model'), context=None) as server:
      found.add(server.description.model_id)
  assert len(found) == 2


ALONE = '''
import sys

class Without:
  """No part of the learning is installed."""

  def find_spec(self, name, path=None, target=None):
    if name.split('.')[0] in ('jax', 'jaxlib', 'flax', 'optax', 'orbax', 'chex', 'ml_collections'):
      raise ModuleNotFoundError(f'{name} is not installed')

sys.meta_path.insert(0, Without())
import numpy
import safenet_jax

path, images, directory, workers = sys.argv[1:]
from safenet_jax.transport import tls
files = tls.insecure_test_certificate(directory)
model = safenet_jax.load_bundle(path)
options = safenet_jax.ServerOptions(workers=int(workers))
with safenet_jax.Server(
    model, context=safenet_jax.server_context(*files), options=options
) as server:
  with safenet_jax.Client(
      *server.address, context=safenet_jax.client_context(files.certificate)
  ) as client:
    print(*client.infer(numpy.load(images)).argmax(-1))
'''


@pytest.mark.parametrize('workers', ['0', '1'])
def test_server_and_client_run_without_jax_and_without_a_main_guard(tmp_path, workers):
  model, images = models.calibrated(), small.IMAGES[:2]
  bundles.save(tmp_path / 'model', model)
  np.save(tmp_path / 'images.npy', images)
  script = tmp_path / 'alone.py'
  script.write_text(ALONE)
  found = subprocess.run(
    [sys.executable, script, tmp_path / 'model', tmp_path / 'images.npy', tmp_path, workers],
    capture_output=True,
    text=True,
    timeout=600,
    cwd=fresh.ROOT,
    env=os.environ | {'PYTHONPATH': str(fresh.ROOT)},
  )
  assert found.returncode == 0, found.stderr
  assert found.stdout.split() == [str(n) for n in model.run(images).argmax(-1)]
