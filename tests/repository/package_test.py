"""The public names, the wheel, and the code of the documents run from that wheel."""

import ast
import email
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import zipfile

import pytest

import safenet_jax

ROOT = pathlib.Path(__file__).parents[2]


def python(*arguments, cwd=ROOT, **environment):
  return subprocess.run(
    [sys.executable, *map(str, arguments)],
    check=True,
    cwd=cwd,
    capture_output=True,
    text=True,
    env=os.environ | environment,
    timeout=300,
  ).stdout


@pytest.fixture(scope='module')
def built(tmp_path_factory):
  """A source archive of this tree, and the wheel that was built from the archive."""
  folder = tmp_path_factory.mktemp('dist')
  python('-m', 'build', '--no-isolation', '--outdir', folder, ROOT)
  (archive,), (wheel,) = folder.glob('*.tar.gz'), folder.glob('*.whl')
  return archive, wheel


@pytest.fixture(scope='module')
def outside(built, tmp_path_factory):
  """Runs code with the wheel installed, away from the checkout."""
  folder = tmp_path_factory.mktemp('installed')
  python('-m', 'pip', 'install', '--quiet', '--no-deps', '--no-index', '--target', folder, built[1])
  here = tmp_path_factory.mktemp('elsewhere')

  def run(code):
    check = f'import safenet_jax; assert safenet_jax.__file__.startswith({str(folder)!r})\n'
    return python('-c', check + code, cwd=here, PYTHONPATH=str(folder))

  return run


def code_of(document, word):
  """The one Python block of a document that has a word."""
  blocks = re.findall(r'```python\n(.*?)```', (ROOT / document).read_text(), re.DOTALL)
  (code,) = (block for block in blocks if word in block)
  return code


def test_every_public_name_exists_and_has_a_docstring():
  for name in safenet_jax.__all__:
    assert getattr(safenet_jax, name).__doc__, name


def test_type_checkers_see_every_lazy_name_and_no_other():
  """What the block that only they execute imports is what `__getattr__` hands out."""
  source = ast.parse(pathlib.Path(safenet_jax.__file__).read_text())
  (block,) = (
    node
    for node in source.body
    if isinstance(node, ast.If) and ast.unparse(node.test) == 'TYPE_CHECKING'
  )
  assert all(isinstance(node, ast.ImportFrom) and node.level == 0 for node in block.body)
  seen = [
    (alias.asname or alias.name, (node.module.removeprefix('safenet_jax.'), alias.name))
    for node in block.body
    for alias in node.names
  ]
  assert len(seen) == len(dict(seen)) and dict(seen) == safenet_jax._NAMES


def test_importing_the_package_imports_no_jax():
  python('-c', 'import sys, safenet_jax; sys.exit("jax" in sys.modules)')


def test_the_wheel_holds_the_package_and_the_embedded_images_and_nothing_else(built):
  archive, wheel = built
  package, images = (
    {
      str(p.relative_to(ROOT))
      for p in (ROOT / folder).rglob('*')
      if p.is_file() and '__pycache__' not in p.parts
    }
    for folder in ('safenet_jax', 'third_party')
  )
  inside = {f'safenet_jax/{name}' for name in images}
  with zipfile.ZipFile(wheel) as file:
    names = {name for name in file.namelist() if '.dist-info/' not in name}
    (metadata,) = (name for name in file.namelist() if name.endswith('.dist-info/METADATA'))
    metadata = email.message_from_bytes(file.read(metadata))
    (entries,) = (name for name in file.namelist() if name.endswith('.dist-info/entry_points.txt'))
    entries = file.read(entries).decode().split('\n')
    licences = [name for name in file.namelist() if '.dist-info/licenses/' in name]
  assert names == package | inside and len(images) >= 4
  assert entries[:2] == ['[console_scripts]', 'safenet = safenet_jax.console.main:main']
  assert len(licences) == 1 + len(list((ROOT / 'third_party').glob('*/LICENSE*'))) > 1
  assert {'images', 'onnx', 'report', 'serve', 'test'} == set(metadata.get_all('Provides-Extra'))
  with tarfile.open(archive) as file:
    assert package | images <= {name.partition('/')[2] for name in file.getnames()}


def test_quickstart_of_readme_runs_from_the_wheel(outside):
  code = code_of('README.md', 'load_data')
  assert len(code.strip().splitlines()) <= 15
  # The same calls, on a network of two layers and for less long.
  layers = ('AveragePool(4)', 'Conv(8)', 'Activation()', 'Flatten()', 'Dense(10)')
  tiny = ', '.join(f'safenet.{layer}' for layer in layers)
  for given, small in (
    ('safenet.cnn7(width=0.25, ', f'safenet.Network(({tiny}), '),
    ('epochs=3', 'epochs=1'),
    ('population=4, epochs=2', 'population=2, iterations=2, joint_cycles=1, epochs=1'),
  ):
    assert code.count(given) == 1
    code = code.replace(given, small)
  found = outside(code)
  assert 'of the ReLUs replaced' in found
  assert re.search(r'private \[\d \d \d \d\] plaintext \[\d \d \d \d\]$', found.strip())


def test_a_network_of_the_documents_runs_from_the_wheel(outside):
  code = code_of('docs/own_network.md', 'Residual')
  found = outside('import jax\nimport safenet_jax as safenet\n' + code)
  assert found.strip() == "['conv0/kernel', 'conv0_bn/bias', 'conv0_bn/mean']"
