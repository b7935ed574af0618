"""The table of mutations: single lines of the code that hide, name or check something, made wrong.

`crypto.toml` and `protocol.toml` have an entry for each file:

  path: of the file, below `safenet_jax/`.
  tests: that concern it, below `tests/`, the quick ones first.
  mutations: [old text, new text, what that breaks]. A test has to fail for each.
  harmless: the same, and the third is why no test can tell.

An old text is in its file just once, so that it says where it is.
"""

import pathlib
import tomllib
from typing import NamedTuple

HERE = pathlib.Path(__file__).parent


class Mutation(NamedTuple):
  """One change to a file; `breaks` is the reason why it is harmless where it is."""

  path: str
  old: str
  new: str
  breaks: str
  tests: tuple[str, ...]
  harmless: bool

  def apply(self, root: pathlib.Path) -> str:
    """The file's text with the change; ValueError where the old text is not there just once."""
    text = (root / 'safenet_jax' / self.path).read_text()
    found = text.count(self.old)
    if found != 1:
      raise ValueError(f'{self.path}: {found} places with {self.old!r}, want one')
    return text.replace(self.old, self.new)


def load() -> list[Mutation]:
  """All mutations, in the order of the table."""
  found = []
  for name in ('crypto.toml', 'protocol.toml'):
    for entry in tomllib.loads((HERE / name).read_text())['file']:
      for kind in ('mutations', 'harmless'):
        for old, new, breaks in entry.get(kind, []):
          tests = tuple(entry['tests'])
          found.append(Mutation(entry['path'], old, new, breaks, tests, kind == 'harmless'))
  return found
