"""`jax.jit` with the compiler options under which networks train fast on a CPU.

On CPU, jaxlib 0.10 gives convolutions to a library whose kernel gradients reach a third
of the speed of XLA's own (34 against 113 GFLOP/s on one core). So only reductions are
left to that library. The options are given with each function and not in the
environment, because a jaxlib that does not know them would end the process there.
"""

from collections.abc import Callable
import functools
from typing import Any

import jax

_CPU_OPTIONS = {'xla_cpu_experimental_ynn_fusion_type': 'LIBRARY_FUSION_TYPE_REDUCE'}


def jit(function: Callable | None = None, **arguments: Any) -> Any:
  """As `jax.jit`, but jits at the first use, so that importing starts no backend.

  The result cannot be called inside another jitted function.
  """
  if function is None:
    return functools.partial(jit, **arguments)
  return _Jitted(function, arguments)


class _Jitted:
  """A jitted function, made when it is first needed."""

  def __init__(self, function: Callable, arguments: dict[str, Any]):
    self.function, self.arguments = function, arguments
    functools.update_wrapper(self, function)

  @functools.cached_property
  def compiled(self) -> Any:
    return jax.jit(self.function, compiler_options=options(), **self.arguments)

  def __call__(self, *args, **kwargs):
    return self.compiled(*args, **kwargs)

  def __getattr__(self, name: str) -> Any:
    if name == 'compiled' or name.startswith('__'):
      raise AttributeError(name)
    return getattr(self.compiled, name)


@functools.cache
def options() -> dict[str, str] | None:
  """Options for the default backend; None if it is no CPU, or does not know them."""
  if jax.default_backend() != 'cpu':
    return None
  try:
    jax.jit(lambda x: x + 1, compiler_options=_CPU_OPTIONS)(0)
  except jax.errors.JaxRuntimeError:
    return None
  return _CPU_OPTIONS
