"""Makes the ONNX files beside it, with PyTorch 2.13: python tests/data/onnx/make.py [NAME...].

It is no test and needs torch, onnxscript and onnx, which the tests do not. All networks but
`fashion.onnx` have random weights.
"""

import pathlib
import sys
import warnings

import numpy as np
import torch
from torch import nn

import safenet_jax as safenet

FOLDER = pathlib.Path(__file__).parent


class Residual(nn.Module):
  """A block of ResNet with a projection where the stride is not 1."""

  def __init__(self, inputs, outputs, stride=1):
    super().__init__()
    self.branch = nn.Sequential(
      nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
      nn.BatchNorm2d(outputs),
      nn.ReLU(),
      nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
      nn.BatchNorm2d(outputs),
    )
    self.shortcut = nn.Identity()
    if stride > 1:
      self.shortcut = nn.Sequential(
        nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
      )

  def forward(self, x):
    return nn.functional.relu(self.branch(x) + self.shortcut(x))


class LongShortcut(nn.Module):
  """A shortcut over two blocks, and slopes."""

  def __init__(self, channels):
    super().__init__()
    self.first = Residual(channels, channels)
    self.second = Residual(channels, channels)
    self.last = nn.PReLU()

  def forward(self, x):
    return self.last(x + self.second(nn.functional.leaky_relu(self.first(x), 0.2)))


class Fire(nn.Module):
  """Two branches side by side (SqueezeNet)."""

  def __init__(self, inputs, outputs):
    super().__init__()
    self.squeeze = nn.Conv2d(inputs, 3, 1)
    self.ones, self.threes = nn.Conv2d(3, outputs, 1), nn.Conv2d(3, outputs, 3, padding=1)

  def forward(self, x):
    x = self.squeeze(x).relu()
    return torch.cat([self.ones(x).relu(), self.threes(x).relu()], 1)


class DenseBlock(nn.Module):
  """Layers that read all before them (DenseNet), with a batch norm that comes first."""

  def __init__(self, inputs, growth, count):
    super().__init__()
    self.layers = nn.ModuleList(
      nn.Sequential(
        nn.BatchNorm2d(inputs + n * growth),
        nn.ReLU(),
        nn.Conv2d(inputs + n * growth, growth, 3, padding=1, bias=False),
      )
      for n in range(count)
    )

  def forward(self, x):
    found = [x]
    for layer in self.layers:
      found.append(layer(torch.cat(found, 1)))
    return torch.cat(found, 1)


class Inverted(nn.Module):
  """A block of MobileNetV2: wide, depthwise, narrow."""

  def __init__(self, channels):
    super().__init__()
    wide = 3 * channels
    self.branch = nn.Sequential(
      nn.Conv2d(channels, wide, 1, bias=False),
      nn.BatchNorm2d(wide),
      nn.ReLU6(),
      nn.Conv2d(wide, wide, 3, padding=2, dilation=2, groups=wide, bias=False),
      nn.BatchNorm2d(wide),
      nn.ReLU6(),
      nn.Conv2d(wide, channels, 1, bias=False),
      nn.BatchNorm2d(channels),
    )

  def forward(self, x):
    return x + self.branch(x)


class View(nn.Module):
  """A flatten by the size of the batch."""

  def forward(self, x):
    return x.view(x.size(0), -1)


class Mean(nn.Module):
  """The mean over the map."""

  def forward(self, x):
    return x.mean((2, 3))


def networks():
  """Name: the network, the shape of an image, exporter, opset, whether batch norm stays."""
  return {
    'residual': (
      nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), Residual(4, 4), Residual(4, 6, 2), LongShortcut(6),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5),
      ), (3, 16, 16), 'script', 11, True,
    ),
    'fire': (
      nn.Sequential(
        nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True), Fire(4, 4),
        nn.Dropout(), nn.Conv2d(8, 5, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
      ), (3, 18, 18), 'script', 13, False,
    ),
    'dense_block': (
      nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(3, 2, 1), DenseBlock(4, 3, 3),
        nn.BatchNorm2d(13), nn.ReLU(), nn.AvgPool2d(2), Mean(), nn.Linear(13, 5),
      ), (3, 8, 8), 'script', 17, True,
    ),
    'inverted': (
      nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU6(), Inverted(4), nn.AvgPool2d(3, 2, 1),
        nn.Flatten(), nn.Linear(16, 5), nn.LogSoftmax(1),
      ), (3, 8, 8), 'dynamo', 18, False,
    ),
    'perceptron': (
      nn.Sequential(
        nn.Flatten(), nn.Linear(48, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 5, bias=False),
        nn.Softmax(1),
      ), (3, 4, 4), 'dynamo', 20, False,
    ),
    'view': (
      nn.Sequential(
        nn.ZeroPad2d((1, 0, 1, 0)), nn.Conv2d(2, 4, 2, 2, groups=2), nn.ReLU(), View(),
        nn.ReLU(), nn.Linear(36, 5),
      ), (2, 5, 5), 'dynamic', 14, False,
    ),
  }  # fmt: skip


def export(name, model, shape, exporter, opset, keep):
  """Writes NAME.onnx beside this file."""
  model.eval()
  more = {'dynamo': exporter == 'dynamo'}
  if exporter == 'dynamo':
    more |= {'external_data': False, 'verbose': False}
  elif keep:
    more |= {'training': torch.onnx.TrainingMode.PRESERVE, 'do_constant_folding': False}
  if exporter == 'dynamic':
    more |= {'dynamic_axes': {'image': {0: 'n', 2: 'h', 3: 'w'}}}
  torch.onnx.export(
    model,
    (torch.zeros(1, *shape),),
    FOLDER / f'{name}.onnx',
    input_names=['image'],
    output_names=['logits'],
    opset_version=opset,
    **more,
  )


def fashion():
  """A small network that is trained on Fashion-MNIST as PyTorch's users do it."""
  images = safenet.load_data('fashion_mnist')
  pixels, labels = (torch.from_numpy(np.array(part)) for part in images.train)
  pixels = (pixels.permute(0, 3, 1, 2) / 255 - 0.286) / 0.353
  labels = labels.long()
  model = nn.Sequential(
    nn.Conv2d(1, 8, 5, 2, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1, bias=False),
    nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(784, 10),
  )  # fmt: skip
  optimiser = torch.optim.Adam(model.parameters(), 3e-3)
  for epoch in range(12):
    for batch in torch.randperm(len(labels)).split(64):
      optimiser.zero_grad()
      nn.functional.cross_entropy(model(pixels[batch]), labels[batch]).backward()
      optimiser.step()
    optimiser.param_groups[0]['lr'] *= 0.75
    print(f'epoch {epoch}')
  return model, (1, 28, 28), 'script', 17, False


def main():
  warnings.filterwarnings('ignore')
  torch.set_num_threads(1)
  torch.manual_seed(0)
  made = networks()
  wanted = sys.argv[1:] or [*made, 'fashion']
  for name, (model, *options) in made.items():
    for layer in model.modules():
      if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
        nn.init.normal_(layer.running_mean, 0, 0.2)
        nn.init.uniform_(layer.running_var, 0.5, 1.5)
        nn.init.uniform_(layer.weight, 0.5, 1.5)
        nn.init.normal_(layer.bias, 0, 0.2)
    if name in wanted:
      export(name, model, *options)
  if 'fashion' in wanted:
    torch.manual_seed(0)
    export('fashion', *fashion())


if __name__ == '__main__':
  main()
