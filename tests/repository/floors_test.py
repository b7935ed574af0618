"""Imports go down only (WORKSPACE_NOTES.md, "The house")."""

import pathlib
import runpy
import types

ROOT = pathlib.Path(__file__).parents[2]
PACKAGE = ROOT / 'safenet_jax'
# The script that draws the floors reads the same table and the same imports.
dependencies = types.SimpleNamespace(**runpy.run_path(str(ROOT / 'docs' / 'dependencies.py')))


def package_files():
  return [p for p in PACKAGE.rglob('*.py') if p != PACKAGE / '__init__.py']


def test_every_import_goes_down():
  table = dependencies.floors()
  for name, others in dependencies.imports_by_floor().items():
    allowed = {*table['anywhere'], *table['may_import'][name]}
    assert others <= allowed, f'{name} imports {others - allowed}, which docs/floors.toml forbids'


def test_no_floor_is_allowed_what_it_has_above_it():
  table = dependencies.floors()
  order = list(table['may_import'])
  for name, others in table['may_import'].items():
    assert all(order.index(other) < order.index(name) for other in others), name


def test_every_folder_has_a_floor_and_every_floor_is_there():
  table = dependencies.floors()
  modules = ['.'.join(path.relative_to(ROOT).with_suffix('').parts) for path in package_files()]
  found = {dependencies.floor(m.removesuffix('.__init__'), table['parts']) for m in modules}
  assert found - {'protocol'} == set(table['may_import'])


def test_the_picture_of_the_floors_is_up_to_date():
  drawn = (ROOT / 'docs' / 'dependencies.svg').read_text()
  assert drawn == dependencies.picture(), 'run make docs'


def test_crypto_needs_no_jax_and_no_sockets():
  for path in (PACKAGE / 'crypto').rglob('*.py'):
    for module in dependencies.imported(path):
      assert module.split('.')[0] not in ('jax', 'flax', 'socket', 'ssl'), (
        f'{path} imports {module}'
      )


def test_only_one_module_imports_seal():
  importers = [
    path.name
    for path in package_files()
    if 'seal' in [module.split('.')[0] for module in dependencies.imported(path)]
  ]
  assert importers == ['bfv.py']


def test_secrets_are_not_drawn_from_jax_or_numpy():
  for folder in ('crypto', 'fixed_point', 'quantization', 'transport', 'protocol'):
    for path in (PACKAGE / folder).rglob('*.py'):
      for module in dependencies.imported(path):
        assert module not in ('jax.random', 'numpy.random', 'random', 'pickle'), (
          f'{path} imports {module}'
        )
      text = path.read_text()
      assert 'jax.random.' not in text.replace('`jax.random`', ''), path
      assert 'np.random.' not in text, path


def test_no_file_passes_450_lines():
  for path in (*PACKAGE.rglob('*.py'), *(ROOT / 'experiments').rglob('*.py')):
    assert len(path.read_text().splitlines()) <= 450, path
