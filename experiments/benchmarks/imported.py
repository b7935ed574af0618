"""Networks from ONNX files, with all their ReLUs: are they read right, and what does serving cost?

The files are those in the folder that the environment's SAFENET_ONNX_DIR names; without it, the one
that comes with the tests. Images are Fashion-MNIST's test images, scaled to the network's size, in
all its channels, and normalised as ImageNet's. It needs onnxruntime, and
files that do not end in a softmax.

Rows are `<file>/<quantity>`:

- `float_error`: the largest difference of a logit from onnxruntime's, divided by the largest logit;
- `agree`: the share of classes of the fixed-point network that are onnxruntime's;
- `relus`, `macs`: of one image;

and `<file>/<mode>/<quantity>` with those of the suite `networks`, of two processes and one image.
"""

from collections.abc import Iterator
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from experiments import benchmarks
from experiments.benchmarks import networks, Row
from safenet_jax import data
from safenet_jax.models import layers as records
from safenet_jax.onnx_files import reader
from safenet_jax.quantization import quantize

_OWN = pathlib.Path(__file__).parents[2] / 'tests' / 'data' / 'onnx' / 'fashion.onnx'
_MODES = 'delphi', 'ot'
# Images that choose the formats, and others whose classes are compared.
_CALIBRATION, _COMPARED = 20, 50
# From so many multiply-accumulates on the parties get the limits of large networks.
_LARGE = 1e8


def rows() -> Iterator[Row]:
  folder = os.environ.get('SAFENET_ONNX_DIR')
  files = sorted(pathlib.Path(folder).expanduser().glob('*.onnx')) if folder else [_OWN]
  for path in files[: 1 if benchmarks.QUICK.value else None]:
    yield from _rows(path)


def _rows(path: pathlib.Path) -> Iterator[Row]:
  net, variables = reader.from_onnx(path)
  height, width, channels = net.input_shape
  setting = f'{path.name}, {height} x {width} x {channels}, all ReLUs'

  def row(name: str, value: float, unit: str, more: str = '') -> Row:
    return Row('imported', f'{path.stem}/{name}', setting + more, float(value), unit)

  shapes = records.shapes(net.layers, net.input_shape)
  yield row('relus', sum(shape.activations for shape in shapes), 'ReLUs')
  macs = sum(shape.macs for shape in shapes)
  yield row('macs', macs, 'multiply-accumulates')
  images = _images(_CALIBRATION + _COMPARED, net.input_shape)
  mean, std = ((each[0],) * channels for each in data.IMAGENET_STATISTICS)
  compared = images[_CALIBRATION:]
  normal = np.asarray(data.normalise(jnp.asarray(compared), mean, std))
  wanted, apply = _onnxruntime(path, normal), jax.jit(net.apply)
  found = np.concatenate([np.asarray(apply(variables, image[None])) for image in normal])
  yield row('float_error', np.abs(found - wanted).max() / np.abs(wanted).max(), 'share')
  model = quantize.quantize(net, variables, None, images[:_CALIBRATION], mean=mean, std=std)
  classes = np.array([model.run(image[None]).argmax() for image in compared])
  yield row('agree', float((classes == wanted.argmax(-1)).mean()), 'share', f', {_COMPARED} images')
  for mode in _MODES:
    for name, (value, unit) in networks.measure(
      model, compared[:1], mode, large=macs >= _LARGE
    ).items():
      yield row(f'{mode}/{name}', value, unit, f', {mode}, one image, loopback, TLS')


def _images(count: int, shape: tuple[int, ...]) -> np.ndarray:
  """uint8 [count, H, W, C]."""
  height, width, channels = shape
  grey = np.asarray(data.load('fashion_mnist').test.images[:count, ..., 0])
  scaled = [np.asarray(Image.fromarray(each).resize((width, height))) for each in grey]
  return np.stack([np.stack(scaled)] * channels, -1)


def _onnxruntime(path: pathlib.Path, images: np.ndarray) -> np.ndarray:
  """Its logits [N, classes] for normalised images [N, H, W, C]."""
  import onnxruntime

  session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
  (given,) = session.get_inputs()
  each = (session.run(None, {given.name: image.transpose(2, 0, 1)[None]})[0] for image in images)
  return np.concatenate(list(each))
