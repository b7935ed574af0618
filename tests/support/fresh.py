"""Runs a function of a test module in a fresh interpreter.

A process that has imported JAX runs threads, and must not fork.
"""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent.parent


def run(function) -> None:
  """Calls `function()` there; CalledProcessError if it raises."""
  code = f'from {function.__module__} import {function.__name__} as f; f()'
  subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT, timeout=60)
