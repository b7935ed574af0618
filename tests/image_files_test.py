"""The readers return what was written and refuse everything else."""

import gzip
import io
import os
import pathlib
import pickle
import struct
import tempfile

from hypothesis import given, settings, strategies
import numpy as np
import pytest

from safenet_jax import image_files

CIFAR10 = image_files.CIFAR['cifar10']
CIFAR100 = image_files.CIFAR['cifar100']


def planar(count, seed=0):
  """Random images as CIFAR stores them, uint8 [count, 3072]."""
  return np.random.default_rng(seed).integers(0, 256, (count, 3072), np.uint8)


def idx(array):
  return struct.pack(f'>BBBB{array.ndim}I', 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def python2_batch(pixels, labels, fortran=False, key=b'labels'):
  """A protocol-2 pickle as Python 2 wrote the official batches, byte for byte."""
  data = pixels.tobytes('F' if fortran else 'C')
  order = b'\x88' if fortran else b'\x89'
  return b''.join(
    [
      b'\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x08batch 1 q\x03U',
      bytes([len(key)]),
      key,
      b'q\x04]q\x05(',
      *(b'K' + bytes([label]) for label in labels),
      b'eU\x04dataq\x06cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85'
      b'U\x01b\x87Rq\x09(K\x01M',
      struct.pack('<H', len(pixels)),
      b'M\x00\x0c\x86',
      b'cnumpy\ndtype\nq\x0aU\x02u1K\x00K\x01\x87Rq\x0b(K\x03U\x01|NNNJ\xff\xff\xff\xff'
      b'J\xff\xff\xff\xffK\x00tb',
      order,
      b'T',
      struct.pack('<I', len(data)),
      data,
      b'tbu.',
    ]
  )


def write(folder, content, name='file'):
  path = folder / name
  path.write_bytes(content)
  return path


def test_idx_arrays_are_read_back(tmp_path):
  array = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
  path = write(tmp_path, gzip.compress(idx(array)))
  np.testing.assert_array_equal(image_files.read_idx(path, (3, 4, 5)), array)


@pytest.mark.parametrize(
  'damage, message',
  [
    (lambda raw: raw, 'not a whole gzip file'),
    (lambda raw: gzip.compress(raw)[:-9], 'not a whole gzip file'),
    (lambda raw: gzip.compress(raw)[:-8] + bytes(8), 'not a whole gzip file'),
    (lambda raw: gzip.compress(b''), 'header'),
    (lambda raw: gzip.compress(b'\0\0\x09' + raw[3:]), 'header'),
    (lambda raw: gzip.compress(raw[:4] + b'\0\0\0\7' + raw[8:]), 'header'),
    (lambda raw: gzip.compress(raw[:-1]), 'less than the 60 bytes'),
    (lambda raw: gzip.compress(raw + b'1'), 'more than the 60 bytes'),
  ],
)
def test_damaged_idx_files_are_refused(tmp_path, damage, message):
  raw = idx(np.ones((3, 4, 5), np.uint8))
  path = write(tmp_path, damage(raw))
  with pytest.raises(ValueError, match=message) as error:
    image_files.read_idx(path, (3, 4, 5))
  assert str(path) in str(error.value)


def test_binary_cifar_images_become_channels_last_with_the_fine_label(tmp_path):
  pixels, labels = planar(4), np.array([3, 0, 9, 1], np.uint8)
  coarse = np.full(4, 19, np.uint8)
  ten = np.concatenate([labels[:, None], pixels], 1)
  hundred = np.concatenate([coarse[:, None], labels[:, None], pixels], 1)
  for layout, records in ((CIFAR10, ten), (CIFAR100, hundred)):
    path = write(tmp_path, records.tobytes())
    images, read_labels = image_files.read_cifar_binary(path, layout, 4)
    assert images.dtype == np.uint8 and read_labels.dtype == np.int32
    np.testing.assert_array_equal(read_labels, labels)
    np.testing.assert_array_equal(images[2, 5, 7], pixels[2].reshape(3, 32, 32)[:, 5, 7])
    np.testing.assert_array_equal(images.transpose(0, 3, 1, 2).reshape(4, 3072), pixels)


def test_binary_cifar_files_of_another_size_or_label_are_refused(tmp_path):
  records = np.zeros((2, 3073), np.uint8)
  with pytest.raises(ValueError, match='6145 bytes, want 2 records of 3073'):
    image_files.read_cifar_binary(write(tmp_path, records.tobytes()[1:]), CIFAR10, 2)
  records[1, 0] = 10
  with pytest.raises(ValueError, match='labels from 0 to 10, want 0 to 9'):
    image_files.read_cifar_binary(write(tmp_path, records.tobytes()), CIFAR10, 2)


@pytest.mark.parametrize(
  'encode',
  [
    python2_batch,
    lambda pixels, labels: python2_batch(pixels, labels, fortran=True),
    lambda pixels, labels: pickle.dumps({'data': pixels, 'labels': labels}, 2),
    lambda pixels, labels: pickle.dumps({'data': pixels, 'labels': labels}, 4),
    lambda pixels, labels: pickle.dumps({b'data': pixels, b'labels': labels}, 3),
    lambda pixels, labels: pickle.dumps({'data': np.asfortranarray(pixels), 'labels': labels}, 2),
  ],
)
def test_python_cifar_batches_are_read_however_they_were_pickled(tmp_path, encode):
  pixels, labels = planar(5), [4, 9, 0, 2, 2]
  path = write(tmp_path, encode(pixels, labels))
  images, read_labels = image_files.read_cifar_python(path, CIFAR10, 5)
  assert read_labels.dtype == np.int32 and images.flags.c_contiguous
  np.testing.assert_array_equal(read_labels, labels)
  np.testing.assert_array_equal(images.transpose(0, 3, 1, 2).reshape(5, 3072), pixels)


def test_the_handwritten_python2_batch_is_a_true_pickle():
  pixels = planar(5)
  batch = pickle.loads(python2_batch(pixels, [4, 9, 0, 2, 2]), encoding='bytes')  # noqa: S301
  np.testing.assert_array_equal(batch[b'data'], pixels)


@pytest.mark.parametrize(
  'content, message',
  [
    ({'labels': [0, 0]}, 'KeyError'),
    ({'data': planar(2), 'fine_labels': [0, 0]}, 'KeyError'),
    ({'data': planar(3), 'labels': [0, 0]}, 'data of shape'),
    ({'data': planar(2)[:, 1:], 'labels': [0, 0]}, 'data of shape'),
    ({'data': planar(2).astype(np.float32), 'labels': [0, 0]}, 'want uint8'),
    ({'data': np.array([None, {}]), 'labels': [0, 0]}, 'want uint8'),
    ({'data': planar(2), 'labels': [0, 0, 0]}, 'want 2 integers'),
    ({'data': planar(2), 'labels': [0, 0.5]}, 'want 2 integers'),
    ({'data': planar(2), 'labels': [0, -1]}, 'labels from -1'),
    ([planar(2)], 'not a CIFAR batch'),
  ],
)
def test_python_cifar_batches_of_other_contents_are_refused(tmp_path, content, message):
  path = write(tmp_path, pickle.dumps(content, 4))
  with pytest.raises(ValueError, match=message) as error:
    image_files.read_cifar_python(path, CIFAR10, 2)
  assert str(path) in str(error.value)


class _Gadget:
  """Pickles as a call of any function."""

  def __init__(self, function, *arguments):
    self.call = function, arguments

  def __reduce__(self):
    return self.call


@pytest.mark.parametrize('protocol', [0, 2, 4, 5])
@pytest.mark.parametrize('name', ['system', 'eval', 'getattr', 'load', 'frombuffer'])
def test_malicious_pickles_run_nothing(tmp_path, name, protocol):
  trace = tmp_path / 'trace'
  gadget = {
    'system': _Gadget(os.system, f'touch {trace}'),
    'eval': _Gadget(eval, f'open({str(trace)!r}, "w")'),
    'getattr': _Gadget(getattr, trace, 'touch'),
    'load': _Gadget(np.load, str(trace)),
    'frombuffer': _Gadget(np.frombuffer, b'12'),
  }[name]
  content = pickle.dumps({'data': planar(2), 'labels': [0, 0], 'extra': gadget}, protocol)
  path = write(tmp_path, content)
  with pytest.raises(ValueError, match='it asks for'):
    image_files.read_cifar_python(path, CIFAR10, 2)
  assert not trace.exists()
  if name == 'system':
    pickle.loads(content)  # noqa: S301 - the same bytes do run where nothing stops them
    assert trace.exists()


def test_pickles_cannot_alter_what_stands_for_numpy(tmp_path):
  # BUILD with a pair sets attributes of whatever object is on the stack.
  tamper = b'\x80\x02cnumpy.core.multiarray\n_reconstruct\n(N}U\x05arrayK\x01stb.'
  with pytest.raises(ValueError, match='not a CIFAR batch'):
    image_files.read_cifar_python(write(tmp_path, tamper), CIFAR10, 1)
  images, _ = image_files.read_cifar_python(
    write(tmp_path, python2_batch(planar(1), [0])), CIFAR10, 1
  )
  assert images.shape == (1, 32, 32, 3)


def npz(**arrays):
  file = io.BytesIO()
  np.savez_compressed(file, **arrays)
  return file.getvalue()


IMAGES = np.zeros((12, 4, 5, 3), np.uint8)
LABELS = np.arange(12) % 3


def test_npz_arrays_are_read_and_completed(tmp_path):
  path = write(tmp_path, npz(images=IMAGES[..., 0], labels=LABELS.astype(np.uint8)))
  arrays = image_files.read_npz(path)
  assert arrays['images'].shape == (12, 4, 5, 1)
  assert arrays['labels'].dtype == np.int32
  np.testing.assert_array_equal(arrays['labels'], LABELS)
  assert arrays['class_names'].tolist() == ['0', '1', '2']


@pytest.mark.parametrize(
  'arrays, message',
  [
    ({'x': IMAGES}, 'holds x, want images and labels'),
    ({}, 'holds nothing'),
    ({'images': IMAGES}, 'want images and labels'),
    ({'images': IMAGES, 'labels': LABELS, 'test_image': IMAGES}, 'holds images, labels, test_im'),
    ({'images': IMAGES, 'labels': LABELS, 'test_images': IMAGES}, 'want images and labels'),
    ({'images': IMAGES.astype(float), 'labels': LABELS}, 'images are float64'),
    ({'images': IMAGES[0, 0], 'labels': LABELS[:4]}, 'shape .5, 3.'),
    ({'images': IMAGES[:0], 'labels': LABELS[:0]}, 'shape .0, 4, 5, 3.'),
    ({'images': IMAGES, 'labels': LABELS[:11]}, 'want 12 integers'),
    ({'images': IMAGES, 'labels': LABELS[:, None]}, 'want 12 integers'),
    ({'images': IMAGES, 'labels': LABELS / 2}, 'labels are float64'),
    ({'images': IMAGES, 'labels': LABELS - 1}, 'labels from -1'),
    ({'images': IMAGES, 'labels': LABELS * 10**9}, 'labels up to 2000000000 of 12 images'),
    ({'images': IMAGES, 'labels': LABELS, 'class_names': np.array(['a', 'b'])}, 'want 0 to 1'),
    ({'images': IMAGES, 'labels': LABELS, 'class_names': LABELS}, 'want strings'),
    (
      {'images': IMAGES, 'labels': LABELS, 'test_images': IMAGES[:, 1:], 'test_labels': LABELS},
      'test_images of shape',
    ),
    (
      {'images': IMAGES, 'labels': LABELS, 'test_images': IMAGES, 'test_labels': LABELS + 1},
      'labels from 1 to 3, want 0 to 2',
    ),
    ({'images': IMAGES, 'labels': np.array([None] * 12)}, 'plain arrays'),
  ],
)
def test_npz_files_of_other_contents_are_refused(tmp_path, arrays, message):
  path = write(tmp_path, npz(**arrays))
  with pytest.raises(ValueError, match=message) as error:
    image_files.read_npz(path)
  assert str(path) in str(error.value)


WHOLE = {
  'idx': (
    gzip.compress(idx(np.arange(60, dtype=np.uint8).reshape(3, 4, 5))),
    lambda path: image_files.read_idx(path, (3, 4, 5)),
  ),
  'pickle': (
    python2_batch(planar(2), [3, 4]),
    lambda path: image_files.read_cifar_python(path, CIFAR10, 2),
  ),
  'npz': (npz(images=IMAGES, labels=LABELS), image_files.read_npz),
}


@settings(max_examples=300, deadline=None)
@given(kind=strategies.sampled_from(sorted(WHOLE)), data=strategies.data())
def test_no_damage_raises_anything_but_value_error(kind, data):
  content, read = WHOLE[kind]
  # The pixels in the middle of a pickle are many and all alike.
  places = strategies.one_of(
    strategies.integers(0, min(len(content) - 1, 400)),
    strategies.integers(max(0, len(content) - 400), len(content) - 1),
  )
  damaged = bytearray(content)
  for place, byte in data.draw(
    strategies.lists(strategies.tuples(places, strategies.integers(0, 255)), max_size=3)
  ):
    damaged[place] = byte
  cut = data.draw(strategies.one_of(strategies.just(len(content)), places))
  with tempfile.TemporaryDirectory() as folder:
    path = write(pathlib.Path(folder), bytes(damaged[:cut]))
    try:
      read(path)
    except ValueError as error:
      assert str(path) in str(error)
