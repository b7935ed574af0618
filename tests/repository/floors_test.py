"""Imports go down only (WORKSPACE_NOTES.md, "The house")."""

import ast
import pathlib

ROOT = pathlib.Path(__file__).parents[2]
PACKAGE = ROOT / 'safenet_jax'

# Each floor may import itself and those named after it. A floor is a folder of the package, or
# in `protocol` a folder of that.
ALLOWED = {
  'workdir': set(),
  'data': set(),
  'models': set(),
  'crypto': set(),
  'approximation': {'models'},
  'search': {'approximation', 'models', 'data', 'workdir'},
  'fixed_point': {'crypto', 'approximation', 'models'},
  'transport': {'crypto'},
  'protocol.layers': {'transport', 'fixed_point', 'crypto', 'models'},
  'protocol.delphi': {'protocol.layers', 'transport', 'fixed_point', 'crypto', 'models'},
  'protocol.gazelle': {
    'protocol.delphi',
    'protocol.layers',
    'transport',
    'fixed_point',
    'crypto',
    'models',
  },
  'protocol.service': {
    'protocol.gazelle',
    'protocol.delphi',
    'protocol.layers',
    'transport',
    'fixed_point',
    'crypto',
    'models',
  },
  'protocol.simulation': {'protocol.layers', 'transport', 'fixed_point', 'crypto', 'models'},
  'protocol.estimate': {
    'protocol.service',
    'protocol.gazelle',
    'protocol.delphi',
    'protocol.layers',
    'transport',
    'fixed_point',
    'crypto',
    'approximation',
    'models',
  },
  'console': {
    'protocol.estimate',
    'protocol.service',
    'protocol.layers',
    'transport',
    'fixed_point',
    'crypto',
    'models',
  },
  'report': {
    'protocol.estimate',
    'transport',
    'fixed_point',
    'search',
    'approximation',
    'models',
    'workdir',
  },
}


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
  """The floor of a dotted name in the package; the reading of files is data's."""
  _, name, *rest = module.split('.')
  if name == 'protocol':
    return f'protocol.{rest[0]}' if rest else name
  return {'archives': 'data', 'image_files': 'data'}.get(name, name)


def package_files():
  # The package itself, as a module and as a command, is on no floor.
  ends = PACKAGE / '__init__.py', PACKAGE / '__main__.py'
  return [p for p in PACKAGE.rglob('*.py') if p not in ends]


def test_every_import_goes_down():
  for path in package_files():
    mine = floor('.'.join(path.relative_to(ROOT).with_suffix('').parts))
    for module in imports(path):
      if module.startswith('safenet_jax.'):
        target = floor(module)
        assert target == mine or target in ALLOWED[mine], f'{path} imports {module}'


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
