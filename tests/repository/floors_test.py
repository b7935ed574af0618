"""Imports go down only (WORKSPACE_NOTES.md, "The house")."""

import ast
import pathlib
import tomllib

ROOT = pathlib.Path(__file__).parents[2]
PACKAGE = ROOT / 'safenet_jax'

FLOORS = tomllib.loads((ROOT / 'docs' / 'floors.toml').read_text())


def imports(path):
  """Dotted names that a file imports."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}: relative import'
      yield node.module
      yield from (f'{node.module}.{alias.name}' for alias in node.names)


def floor(module):
  """The floor of a dotted name in the package."""
  _, name, *rest = module.split('.')
  if name == 'protocol':
    return f'protocol.{rest[0]}' if rest else name
  return FLOORS['parts'].get(name, name)


def package_files():
  return [p for p in PACKAGE.rglob('*.py') if p != PACKAGE / '__init__.py']


def test_every_import_goes_down():
  for path in package_files():
    mine = floor('.'.join(path.relative_to(ROOT).with_suffix('').parts))
    for module in imports(path):
      if module.startswith('safenet_jax.'):
        allowed = (mine, *FLOORS['anywhere'], *FLOORS['may_import'][mine])
        assert floor(module) in allowed, f'{path} imports {module}'


def test_crypto_needs_no_jax_and_no_sockets():
  for path in (PACKAGE / 'crypto').rglob('*.py'):
    for module in imports(path):
      assert module.split('.')[0] not in ('jax', 'flax', 'socket', 'ssl'), (
        f'{path} imports {module}'
      )


def test_only_one_module_imports_seal():
  importers = [p.name for p in package_files() if 'seal' in [m.split('.')[0] for m in imports(p)]]
  assert importers == ['bfv.py']


def test_secrets_are_not_drawn_from_jax_or_numpy():
  for folder in ('crypto', 'fixed_point', 'transport', 'protocol'):
    for path in (PACKAGE / folder).rglob('*.py'):
      for module in imports(path):
        assert module not in ('jax.random', 'numpy.random', 'random', 'pickle'), (
          f'{path} imports {module}'
        )
      text = path.read_text()
      assert 'jax.random.' not in text.replace('`jax.random`', ''), path
      assert 'np.random.' not in text, path


def test_no_file_passes_450_lines():
  for path in (*PACKAGE.rglob('*.py'), *(ROOT / 'experiments').rglob('*.py')):
    assert len(path.read_text().splitlines()) <= 450, path
