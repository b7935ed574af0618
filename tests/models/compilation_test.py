"""Training compiles with options that its backend knows, and without them elsewhere."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from safenet_jax.models import compilation, convolution


@pytest.mark.skipif(jax.default_backend() != 'cpu', reason='options are for CPUs')
def test_kernel_gradients_stay_convolutions_of_the_compiler():
  def kernel_gradient(w, x, g):
    return jax.vjp(lambda w: convolution.convolve(x, w), w)[1](g)

  shapes = ((3, 3, 64, 64), (32, 32, 32, 64), (32, 32, 32, 64))
  arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  for jit, fused in ((compilation.jit, False), (jax.jit, True)):
    text = jit(kernel_gradient).lower(*arguments).compile().as_text()
    # Were the default as good, the options could go.
    assert ('ynn_fusion' in text) == fused


def test_unknown_options_are_left_out(monkeypatch):
  compilation.options.cache_clear()
  monkeypatch.setattr(compilation, '_CPU_OPTIONS', {'xla_cpu_no_such_option': '1'})
  try:
    assert compilation.options() is None
    assert compilation.jit(lambda x: x + 1)(1) == 2
  finally:
    compilation.options.cache_clear()


def test_arguments_are_those_of_jit():
  @compilation.jit(static_argnames='n')
  def power(x, *, n):
    return x**n

  assert power(jnp.float32(3), n=2) == 9
  assert power(jnp.float32(3), n=3) == 27
  assert power._cache_size() == 2
  assert power.__name__ == 'power'


def test_decorating_starts_no_backend():
  program = (
    'from safenet_jax.search import fit, population\n'
    'from jax._src import xla_bridge\n'
    'assert not xla_bridge.backends_are_initialized()'
  )
  subprocess.run([sys.executable, '-c', program], check=True, timeout=120)
