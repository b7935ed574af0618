"""The public names, and the quickstart of README."""

import pathlib
import re
import subprocess
import sys

import safenet_jax

ROOT = pathlib.Path(__file__).parent.parent


def test_every_public_name_exists_and_has_a_docstring():
  for name in safenet_jax.__all__:
    assert getattr(safenet_jax, name).__doc__, name


def test_importing_the_package_imports_no_jax():
  code = 'import sys, safenet_jax; sys.exit("jax" in sys.modules)'
  subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT)


def test_quickstart_of_readme_runs():
  readme = (ROOT / 'README.md').read_text()
  code = re.search(r'```python\n(.*?)```', readme, re.DOTALL).group(1)
  assert len(code.strip().splitlines()) <= 15
  found = subprocess.run(
      [sys.executable, '-c', code], capture_output=True, text=True, check=True, cwd=ROOT
  )
  assert found.stdout.strip()


def test_own_network_of_readme_runs():
  readme = (ROOT / 'README.md').read_text()
  blocks = re.findall(r'```python\n(.*?)```', readme, re.DOTALL)
  (code,) = (block for block in blocks if 'Residual' in block)
  code = 'import jax\nimport safenet_jax as safenet\n' + code
  found = subprocess.run(
      [sys.executable, '-c', code], capture_output=True, text=True, check=True, cwd=ROOT
  )
  assert found.stdout.strip() == "['conv0/kernel', 'conv0_bn/bias', 'conv0_bn/mean']"
