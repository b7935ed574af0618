"""Private inference with planned activations, in JAX.

The flow, which is also the import order:

    data -> models -> approximation -> search -> (crypto ->) protocol -> report

Names are handed out lazily: importing the package imports neither JAX nor the
cryptography, so that a client can run without the former.
"""

import importlib

_NAMES = {
  'load_data': ('data', 'load'),
  'Workdir': ('workdir', 'Workdir'),
  'Conv': ('models.layers', 'Conv'),
  'Dense': ('models.layers', 'Dense'),
  'Activation': ('models.layers', 'Activation'),
  'AveragePool': ('models.layers', 'AveragePool'),
  'MaxPool': ('models.layers', 'MaxPool'),
  'PadShortcut': ('models.layers', 'PadShortcut'),
  'Residual': ('models.layers', 'Residual'),
  'Flatten': ('models.layers', 'Flatten'),
  'Network': ('models.network', 'Network'),
  'relu_counts': ('models.network', 'relu_counts'),
  'build': ('models.architectures', 'build'),
  'register': ('models.architectures', 'register'),
  'cnn7': ('models.architectures', 'cnn7'),
  'vgg16': ('models.architectures', 'vgg16'),
  'resnet32': ('models.architectures', 'resnet32'),
  'resnet18': ('models.architectures', 'resnet18'),
  'load_variables': ('models.weights', 'load_variables'),
  'flatten_variables': ('models.weights', 'flatten_variables'),
  'convert_torch_resnet': ('models.weights', 'convert_torch_resnet'),
  'Plan': ('approximation.plan', 'Plan'),
  'make_plan': ('approximation.plan', 'make'),
  'importance_ranks': ('approximation.importance', 'ranks'),
  'initial_coefficients': ('approximation.activation', 'initial_coefficients'),
  'fitted_coefficients': ('approximation.activation', 'fitted_coefficients'),
  'approximate': ('approximation.activation', 'approximate'),
  'flatten_planned': ('approximation.planned_weights', 'flatten_planned'),
  'load_planned': ('approximation.planned_weights', 'load_planned'),
  'quantize': ('fixed_point.quantize', 'quantize'),
  'quantization_report': ('fixed_point.quantize', 'quantization_report'),
  'save_bundle': ('protocol.service.bundle', 'save'),
  'load_bundle': ('protocol.service.bundle', 'load'),
  'estimate_inference': ('protocol.estimate.estimate', 'inference'),
  'Ledger': ('transport.ledger', 'Ledger'),
  'simulate': ('protocol.simulation.simulator', 'infer'),
  'Server': ('protocol.service.server', 'Server'),
  'ServerOptions': ('protocol.service.server', 'ServerOptions'),
  'Client': ('protocol.service.client', 'Client'),
  'ProtocolError': ('transport.frames', 'ProtocolError'),
  'server_context': ('transport.tls', 'server_context'),
  'client_context': ('transport.tls', 'client_context'),
  'SystemRandomness': ('crypto.randomness', 'SystemRandomness'),
}

__all__ = sorted(_NAMES)


def __getattr__(name: str):
  if name not in _NAMES:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  module, attribute = _NAMES[name]
  return getattr(importlib.import_module(f'{__name__}.{module}'), attribute)


def __dir__():
  return __all__
