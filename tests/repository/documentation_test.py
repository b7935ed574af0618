"""Every public name says what it is and what it raises; the API page is made of that."""

import ast
import importlib
import inspect
import os
import pathlib
import pkgutil
import re
import subprocess
import sys

import safenet_jax

ROOT = pathlib.Path(__file__).parents[2]
MODULES = [
  'safenet_jax',
  *sorted(found.name for found in pkgutil.walk_packages(safenet_jax.__path__, 'safenet_jax.')),
]
# Methods of the objects that `models.layers.run` walks with; what they are given stands there.
OPERATIONS = {
  'conv',
  'dense',
  'activation',
  'average_pool',
  'max_pool',
  'flatten',
  'pad_shortcut',
  'gather',
  'batch_norm',
  'truncate',
  'constant',
  'add',
  'concat',
}
KINDS = (property, classmethod, staticmethod)


def undocumented(module):
  """Public functions, classes and methods of a module that have no docstring."""
  if not module.__doc__:
    yield module.__name__
  for name, value in vars(module).items():
    if name.startswith('_') or getattr(value, '__module__', '') != module.__name__:
      continue
    if not inspect.isfunction(value) and not inspect.isclass(value):
      continue
    # Python writes NamedTuples and dataclasses one of their fields.
    if not value.__doc__ or value.__doc__.startswith(f'{name}('):
      yield f'{module.__name__}.{name}'
    if inspect.isclass(value):
      yield from undocumented_methods(value)


def undocumented_methods(cls):
  """Those of its own that say nothing, and override nothing that does."""
  for name, value in vars(cls).items():
    if name.startswith('_') or name in OPERATIONS:
      continue
    if not inspect.isfunction(value) and not isinstance(value, KINDS):
      continue
    # The methods that flax gives its dataclasses are not ours.
    if getattr(value, '__module__', cls.__module__) != cls.__module__:
      continue
    if not inspect.getdoc(getattr(cls, name)):
      yield f'{cls.__module__}.{cls.__qualname__}.{name}'


def silent(path):
  """Public functions and methods whose docstring leaves out an error that they raise."""

  def own(body, prefix):
    for node in body:
      if getattr(node, 'name', '_').startswith('_'):
        continue
      if isinstance(node, ast.ClassDef):
        yield from own(node.body, f'{prefix}{node.name}.')
      elif isinstance(node, ast.FunctionDef) and node.name not in OPERATIONS:
        text = ast.get_docstring(node) or ''
        for error in (n.exc for n in ast.walk(node) if isinstance(n, ast.Raise)):
          found = re.match(r'[\w.]*\b([A-Z]\w+)', ast.unparse(error)) if error else None
          if found and found[1] not in text:
            yield f'{prefix}{node.name} raises {found[1]}'

  return list(own(ast.parse(path.read_text()).body, f'{path.stem}.'))


def test_every_public_name_has_a_docstring():
  found = [fault for name in MODULES for fault in undocumented(importlib.import_module(name))]
  assert found == []


def test_docstrings_name_the_errors_that_are_raised():
  found = [fault for path in sorted((ROOT / 'safenet_jax').rglob('*.py')) for fault in silent(path)]
  assert found == []


def test_the_checks_see_what_is_missing(tmp_path, monkeypatch):
  (tmp_path / 'undocumented_example.py').write_text(
    'import typing\n'
    'class Pair(typing.NamedTuple):\n  left: int\n'
    'class Good:\n  """Good."""\n  def bad(self): pass\n'
    'def noisy():\n  """Noisy."""\n  raise ValueError(1)\n'
  )
  monkeypatch.syspath_prepend(tmp_path)
  found = list(undocumented(importlib.import_module('undocumented_example')))
  name = 'undocumented_example'
  assert found == [name, f'{name}.Pair', f'{name}.Good.bad']
  assert silent(tmp_path / f'{name}.py') == [f'{name}.noisy raises ValueError']


def test_the_api_page_is_built_without_a_warning(tmp_path):
  found = subprocess.run(
    [sys.executable, '-W', 'error', 'docs/api.py', str(tmp_path)],
    cwd=ROOT,
    env=os.environ | {'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert found.returncode == 0 and not found.stderr, found.stderr[-2000:]
  page = (tmp_path / 'safenet_jax.html').read_text()
  for name in safenet_jax.__all__:
    assert f'id="{name}"' in page, name
  for module in MODULES[1:]:
    assert (tmp_path / f'{module.replace(".", "/")}.html').exists(), module


def headings(path):
  """What a link may name after # in a document, as GitHub spells it."""
  titles = re.findall(r'^#+ (.*)', path.read_text(), re.MULTILINE)
  return {re.sub(r'[^\w\- ]', '', title.lower()).replace(' ', '-') for title in titles}


def test_links_between_documents_lead_somewhere():
  documents = [*ROOT.glob('*.md'), *(ROOT / 'docs').glob('*.md'), *ROOT.glob('experiments/*/*.md')]
  links = [
    (path, *link.partition('#')[::2])
    for path in documents
    for link in re.findall(r'\]\(([^)\s]+)\)', path.read_text())
    if '://' not in link
  ]
  assert len(links) > 50 and len([title for *_, title in links if title]) > 5
  for path, name, title in links:
    target = path.parent / name if name else path
    assert target.exists(), f'{path.name} leads to {name}'
    assert not title or title in headings(target), f'{path.name} leads to {name}#{title}'
