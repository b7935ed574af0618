"""Private inference with planned activations, in JAX.

From images to an answer that its server has never seen:

    data -> models -> search of a plan -> fixed point -> protocol, by client and server -> report

Which folder may import which others is in docs/floors.toml; a test enforces it.

A name is imported when it is first used. So importing the package imports neither JAX
nor cryptography, and a client runs without JAX.
"""
# ruff: noqa: F401 (type checkers and editors read these imports in place of the lazy names)

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from safenet_jax.approximation.activation import (
    approximate,
    fitted_coefficients,
    initial_coefficients,
  )
  from safenet_jax.approximation.importance import ranks as importance_ranks
  from safenet_jax.approximation.planned_weights import flatten_planned, load_planned
  from safenet_jax.approximation.plans import make as make_plan
  from safenet_jax.approximation.plans import Plan
  from safenet_jax.crypto.randomness import SystemRandomness
  from safenet_jax.data import Dataset, Split
  from safenet_jax.data import load as load_data
  from safenet_jax.fixed_point.model import FixedPointModel
  from safenet_jax.models.architectures import build, cnn7, register, resnet18, resnet32, vgg16
  from safenet_jax.models.layers import (
    Activation,
    AveragePool,
    Concat,
    Conv,
    Dense,
    Flatten,
    MaxPool,
    PadShortcut,
    Residual,
  )
  from safenet_jax.models.network import Network, relu_counts
  from safenet_jax.models.weights import convert_torch_resnet, flatten_variables, load_variables
  from safenet_jax.onnx_files.reader import from_onnx
  from safenet_jax.protocol.estimate.choice import over as cheapest_mode
  from safenet_jax.protocol.estimate.estimate import inference as estimate_inference
  from safenet_jax.protocol.service.bundle import load as load_bundle
  from safenet_jax.protocol.service.bundle import save as save_bundle
  from safenet_jax.protocol.service.client import Client
  from safenet_jax.protocol.service.description import Expectation
  from safenet_jax.protocol.service.policy import Policy
  from safenet_jax.protocol.service.processes import ServerProcesses
  from safenet_jax.protocol.service.server import Server, ServerOptions
  from safenet_jax.protocol.simulation.simulator import infer as simulate
  from safenet_jax.quantization.quantize import quantization_report, quantize
  from safenet_jax.search.phases import finetune, Planned, search_plan, train, Trained
  from safenet_jax.search.teacher import Teacher
  from safenet_jax.search.training import Training
  from safenet_jax.transport.accounts import DeniedError
  from safenet_jax.transport.frames import ProtocolError
  from safenet_jax.transport.ledger import Ledger
  from safenet_jax.transport.tls import client_context, server_context
  from safenet_jax.workdir import Workdir

# Public name: module below this one, and what it is called there.
_NAMES = {
  'load_data': ('data', 'load'),
  'Dataset': ('data', 'Dataset'),
  'Split': ('data', 'Split'),
  'Workdir': ('workdir', 'Workdir'),
  'Conv': ('models.layers', 'Conv'),
  'Dense': ('models.layers', 'Dense'),
  'Activation': ('models.layers', 'Activation'),
  'AveragePool': ('models.layers', 'AveragePool'),
  'Concat': ('models.layers', 'Concat'),
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
  'from_onnx': ('onnx_files.reader', 'from_onnx'),
  'Plan': ('approximation.plans', 'Plan'),
  'make_plan': ('approximation.plans', 'make'),
  'importance_ranks': ('approximation.importance', 'ranks'),
  'initial_coefficients': ('approximation.activation', 'initial_coefficients'),
  'fitted_coefficients': ('approximation.activation', 'fitted_coefficients'),
  'approximate': ('approximation.activation', 'approximate'),
  'flatten_planned': ('approximation.planned_weights', 'flatten_planned'),
  'load_planned': ('approximation.planned_weights', 'load_planned'),
  'train': ('search.phases', 'train'),
  'search_plan': ('search.phases', 'search_plan'),
  'finetune': ('search.phases', 'finetune'),
  'Trained': ('search.phases', 'Trained'),
  'Planned': ('search.phases', 'Planned'),
  'Training': ('search.training', 'Training'),
  'Teacher': ('search.teacher', 'Teacher'),
  'quantize': ('quantization.quantize', 'quantize'),
  'quantization_report': ('quantization.quantize', 'quantization_report'),
  'FixedPointModel': ('fixed_point.model', 'FixedPointModel'),
  'save_bundle': ('protocol.service.bundle', 'save'),
  'load_bundle': ('protocol.service.bundle', 'load'),
  'estimate_inference': ('protocol.estimate.estimate', 'inference'),
  'cheapest_mode': ('protocol.estimate.choice', 'over'),
  'Ledger': ('transport.ledger', 'Ledger'),
  'simulate': ('protocol.simulation.simulator', 'infer'),
  'Server': ('protocol.service.server', 'Server'),
  'ServerOptions': ('protocol.service.server', 'ServerOptions'),
  'ServerProcesses': ('protocol.service.processes', 'ServerProcesses'),
  'Policy': ('protocol.service.policy', 'Policy'),
  'DeniedError': ('transport.accounts', 'DeniedError'),
  'Client': ('protocol.service.client', 'Client'),
  'Expectation': ('protocol.service.description', 'Expectation'),
  'ProtocolError': ('transport.frames', 'ProtocolError'),
  'server_context': ('transport.tls', 'server_context'),
  'client_context': ('transport.tls', 'client_context'),
  'SystemRandomness': ('crypto.randomness', 'SystemRandomness'),
}

__all__ = sorted(_NAMES)


if not TYPE_CHECKING:  # a type checker that sees __getattr__ takes every name for a good one

  def __getattr__(name: str):
    if name not in _NAMES:
      raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    module, attribute = _NAMES[name]
    return getattr(importlib.import_module(f'{__name__}.{module}'), attribute)


def __dir__():
  return __all__
