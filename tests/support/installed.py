"""An environment that has nothing installed but what an extra of the package requires."""

import configparser
from importlib import metadata
import os
import pathlib
import re

from packaging.requirements import Requirement

ROOT = pathlib.Path(__file__).parents[2]
# As sitecustomize, so that every process of a command goes without, its workers too.
BLOCKER = """
import sys

class Blocker:
  def find_spec(self, name, path=None, target=None):
    if name.split('.')[0] in {names}:
      raise ModuleNotFoundError(f'{{name}} is not installed')

sys.meta_path.insert(0, Blocker())
"""


def requirements(extra):
  """What setup.cfg lists for an extra."""
  config = configparser.ConfigParser()
  config.read(ROOT / 'setup.cfg')
  return config['options.extras_require'][extra].split()


def _closure(names):
  """Distributions that these ones need, themselves included."""
  found, left = set(), list(names)
  while left:
    name = _normal(left.pop())
    if name in found:
      continue
    found.add(name)
    for text in metadata.requires(name) or ():
      requirement = Requirement(text)
      if requirement.marker is None or requirement.marker.evaluate({'extra': ''}):
        left.append(requirement.name)
  return found


def _normal(name):
  return re.sub('[-_.]+', '-', name).lower()


def blocked(extra):
  """Modules that are installed here, and would not be with the requirements of an extra alone."""
  allowed = _closure(requirements(extra)) | {'safenet-jax'}
  return sorted(
    module
    for module, owners in metadata.packages_distributions().items()
    if not allowed & set(map(_normal, owners))
  )


def environment(folder, extra='serve'):
  """Environment of a process with these requirements alone; `folder` gets a file for it."""
  (folder / 'sitecustomize.py').write_text(BLOCKER.format(names=blocked(extra)))
  return os.environ | {'PYTHONPATH': f'{folder}{os.pathsep}{ROOT}'}
