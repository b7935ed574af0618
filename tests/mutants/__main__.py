"""Runs the table of mutations: does a test fail for each?

  python -m tests.mutants                  all, an hour or less
  python -m tests.mutants layers/relu.py   those of files whose path has this in it

Every mutation is made in a copy of the tree in a temporary folder, where the tests of its
file run until one fails; before, they have to pass without a mutation. A line says which
test has failed, or that the mutation survived. The exit code is 1 if a mutation survived that
is not known to be harmless, or if one that is was killed.
"""

import argparse
from collections.abc import Sequence
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

from tests.mutants import table

ROOT = pathlib.Path(__file__).parents[2]
# A mutation may make two parties wait for each other.
_SECONDS = 300
_LEFT_OUT = shutil.ignore_patterns('.*', '__pycache__', 'runs', 'build', 'dist', '*.egg-info')


def run_tests(root: pathlib.Path, tests: Sequence[str]) -> str | None:
  """Runs test files until a test fails; gives its name, None if all pass."""
  command = [sys.executable, '-m', 'pytest', '-x', '-p', 'no:cacheprovider', '-m', 'not slow']
  if all(name.startswith('crypto/') for name in tests):
    command.append('--noconftest')  # these need no JAX, which takes seconds to import
  command += [f'tests/{name}' for name in tests]
  # Files of compiled code are told from old ones by the second in which they were written.
  environment = os.environ | {'PYTHONPATH': str(root), 'PYTHONDONTWRITEBYTECODE': '1'}
  try:
    done = subprocess.run(
      command, cwd=root, env=environment, capture_output=True, text=True, timeout=_SECONDS
    )
  except subprocess.TimeoutExpired:
    return f'no end in {_SECONDS} s'
  if done.returncode == 0:
    return None
  found = re.search(r'^(?:FAILED|ERROR) tests/(\S+)', done.stdout, re.MULTILINE)
  return found[1] if found else f'exit code {done.returncode}: {done.stdout[-200:]}'


def main(arguments: Sequence[str]) -> int:
  """The exit code."""
  parser = argparse.ArgumentParser(prog='python -m tests.mutants', description=__doc__)
  parser.formatter_class = argparse.RawDescriptionHelpFormatter
  parser.add_argument('paths', nargs='*', default=[''], help='parts of the paths of files')
  wanted = parser.parse_args(arguments).paths
  mutations = [m for m in table.load() if any(part in m.path for part in wanted)]
  with tempfile.TemporaryDirectory() as folder:
    root = pathlib.Path(folder) / 'tree'
    shutil.copytree(ROOT, root, ignore=_LEFT_OUT)
    for mutation in mutations:
      mutation.apply(root)  # raises where the table is out of date
    odd, passing = 0, set()
    for mutation in mutations:
      if mutation.tests not in passing and (failed := run_tests(root, mutation.tests)):
        print(f'without a mutation: {failed}')
        return 1
      passing.add(mutation.tests)
      odd += _odd(root, mutation)
  print(f'{len(mutations)} mutations, {odd} not as the table has them')
  return 1 if odd else 0


def _odd(root: pathlib.Path, mutation: table.Mutation) -> bool:
  """Tries a mutation, prints what came of it, and says whether the table has it otherwise."""
  path, start = root / 'safenet_jax' / mutation.path, time.monotonic()
  before = path.read_text()
  path.write_text(mutation.apply(root))
  killer = run_tests(root, mutation.tests)
  path.write_text(before)
  odd = (killer is None) != mutation.harmless
  result = 'survived' if killer is None else 'killed'
  print(
    f'{"!" if odd else " "} {result:8} {time.monotonic() - start:5.1f} s  '
    f'{mutation.path}: {mutation.breaks}' + (f'  [{killer}]' if killer else ''),
    flush=True,
  )
  return odd


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
