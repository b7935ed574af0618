"""Draws which folder of the package imports which: python docs/dependencies.py FILE.svg.

`make docs` does so. The arrows come from the imports in the code, the order of the floors
from what `floors.toml` allows, and the text in a box from the folder's docstring.
"""

import ast
from collections.abc import Iterator, Mapping
import html
import pathlib
import sys
import textwrap
import tomllib

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / 'safenet_jax'
PROTOCOL = 'protocol.'

# Where a floor stands from left to right: learning on the left, serving on the right.
COLUMNS = {
  'workdir': 0,
  'data': 1,
  'models': 2,
  'onnx_files': 1,
  'crypto': 3.5,
  'approximation': 2,
  'transport': 4,
  'search': 1,
  'fixed_point': 3,
  'quantization': 2,
  'protocol.layers': 3.5,
  'protocol.delphi': 3,
  'protocol.simulation': 4,
  'protocol.gazelle': 3,
  'protocol.minionn': 4,
  'protocol.ot': 5,
  'protocol.service': 3,
  'protocol.estimate': 3,
  'console': 4,
  'report': 2,
  'systems': 2,
}
_BOX, _COLUMN, _ROW, _HEIGHT, _MARGIN = 232, 258, 128, 90, 24
_LINE, _CHARACTERS, _BAR = 15, 33, 50
_STYLE = """
  text { font-family: Helvetica, Arial, sans-serif; font-size: 12px; fill: #333; }
  .name { font-size: 15px; font-weight: bold; fill: #000; }
  .box { fill: #fff; stroke: #456; stroke-width: 1.5; }
  .bar { fill: #eef1f4; stroke: #456; stroke-width: 1.5; }
  .house { fill: #f6f0e4; stroke: #c8b48a; }
  .arrow { fill: none; stroke: #345; stroke-width: 1.6; marker-end: url(#head); }
"""


def floors() -> dict:
  """The table of `floors.toml`."""
  return tomllib.loads((ROOT / 'docs' / 'floors.toml').read_text())


def floor(module: str, parts: Mapping[str, str]) -> str:
  """The floor of a dotted name in the package; `parts` is that of `floors.toml`."""
  _, name, *rest = module.split('.')
  if name == 'protocol':
    return f'protocol.{rest[0]}' if rest else name
  return parts.get(name, name)


def imported(path: pathlib.Path) -> Iterator[str]:
  """Dotted names that a file imports; ValueError for a relative import."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      if node.level:
        raise ValueError(f'{path}: relative import')
      yield str(node.module)
      yield from (f'{node.module}.{alias.name}' for alias in node.names)


def imports_by_floor() -> dict[str, set[str]]:
  """Every floor and the other floors that its files import.

  Raises:
    ValueError: a file belongs to no floor of `floors.toml`.
  """
  table = floors()
  found: dict[str, set[str]] = {name: set() for name in table['may_import']}
  for path in sorted(PACKAGE.rglob('*.py')):
    dotted = '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__')
    if dotted.count('.') == 0 or dotted == 'safenet_jax.protocol':
      continue
    mine = floor(dotted, table['parts'])
    if mine not in found:
      raise ValueError(f'{path} is of floor {mine}, want one that docs/floors.toml names')
    found[mine] |= {
      floor(module, table['parts'])
      for module in imported(path)
      if module.startswith('safenet_jax.')
    }
  return {name: others - {name, 'protocol'} for name, others in found.items()}


def below(name: str, edges: Mapping[str, set[str]]) -> set[str]:
  """All that a floor imports, directly or by way of others."""
  return edges[name].union(*(below(other, edges) for other in edges[name]))


def arrows(edges: Mapping[str, set[str]]) -> list[tuple[str, str]]:
  """The imports that do not follow from others."""
  return [
    (name, other)
    for name, others in edges.items()
    for other in sorted(others)
    if not any(other in below(between, edges) for between in others)
  ]


def picture() -> str:
  """The picture as SVG."""
  table = floors()
  anywhere = table['anywhere']
  edges = {
    name: others.difference(anywhere)
    for name, others in imports_by_floor().items()
    if name not in anywhere
  }
  ranks: dict[str, int] = {}

  def rank(name: str) -> int:
    if name not in ranks:
      ranks[name] = 1 + max((rank(other) for other in edges[name]), default=-1)
    return ranks[name]

  top = max(map(rank, edges))
  width = round(2 * _MARGIN + max(COLUMNS.values()) * _COLUMN + _BOX)

  def place(name: str) -> tuple[float, float]:
    return _MARGIN + COLUMNS[name] * _COLUMN, 100 + (top - ranks[name]) * _ROW

  ground = 100 + (top + 1) * _ROW
  note = ground + _BAR * len(anywhere) + 30
  height = note + 20
  parts = [
    f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
    f'viewBox="0 0 {width} {height}">',
    f'<style>{_STYLE}</style>',
    '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" '
    'markerHeight="8" orient="auto"><path d="M0 0L10 5L0 10z" fill="#345"/></marker></defs>',
    f'<rect width="{width}" height="{height}" fill="#fff"/>',
    *_bar(
      30, width, 'experiments/', 'The commands that people launch. They may import everything.'
    ),
    *_house([place(name) for name in edges if name.startswith(PROTOCOL)]),
  ]
  for name, other in arrows(edges):
    (x, y), (to_x, to_y) = place(name), place(other)
    # Arrows that leave a box in several directions start apart from one another.
    shift = max(-70, min(70, (to_x - x) / 4))
    start, end = x + _BOX / 2 + shift, to_x + _BOX / 2 - shift
    parts.append(
      f'<path class="arrow" d="M{start:g} {y + _HEIGHT:g}L{end:g} {to_y - 2:g}">'
      f'<title>{name} imports {other}</title></path>'
    )
  for name in edges:
    parts += _box(*place(name), name, sorted(edges[name]))
  for number, name in enumerate(anywhere):
    text = _docstring(name) + ' Every floor may import it.'
    parts += _bar(ground + _BAR * number, width, f'{name}.py', text)
  parts.append(
    f'<text x="{_MARGIN}" y="{note}">An arrow points from a folder to one that it '
    'imports. Arrows that follow from others are left out; floors.toml has all that are '
    'allowed.</text>'
  )
  return '\n'.join([*parts, '</svg>']) + '\n'


def _docstring(name: str) -> str:
  """The first line of a floor's docstring."""
  path = PACKAGE.joinpath(*name.split('.'))
  path = path / '__init__.py' if path.is_dir() else path.with_suffix('.py')
  return (ast.get_docstring(ast.parse(path.read_text())) or '').split('\n')[0]


def _box(x: float, y: float, name: str, others: list[str]) -> Iterator[str]:
  is_folder = PACKAGE.joinpath(*name.split('.')).is_dir()
  yield f'<g><title>{name} imports {", ".join(others) or "nothing"}</title>'
  yield f'<rect class="box" x="{x:g}" y="{y:g}" width="{_BOX}" height="{_HEIGHT}" rx="6"/>'
  title = name.removeprefix(PROTOCOL) + ('/' if is_folder else '.py')
  yield f'<text class="name" x="{x + 10:g}" y="{y + 20:g}">{title}</text>'
  lines = textwrap.wrap(_docstring(name), _CHARACTERS, max_lines=4, placeholder=' ...')
  for number, line in enumerate(lines, 1):
    yield f'<text x="{x + 10:g}" y="{y + 22 + number * _LINE:g}">{html.escape(line)}</text>'
  yield '</g>'


def _bar(y: float, width: float, name: str, text: str) -> Iterator[str]:
  size = f'width="{width - 2 * _MARGIN:g}" height="40"'
  yield f'<rect class="bar" x="{_MARGIN}" y="{y:g}" {size} rx="6"/>'
  yield (
    f'<text x="{_MARGIN + 10}" y="{y + 25:g}"><tspan class="name">{name}</tspan>'
    f'<tspan dx="12">{html.escape(text)}</tspan></text>'
  )


def _house(places: list[tuple[float, float]]) -> Iterator[str]:
  """The frame around the folders of protocol/."""
  x, y = min(x for x, _ in places) - 12, min(y for _, y in places) - 28
  width = max(x for x, _ in places) + _BOX + 12 - x
  height = max(y for _, y in places) + _HEIGHT + 12 - y
  yield f'<rect class="house" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="10"/>'
  # On the right, where no arrow enters the frame.
  yield f'<text class="name" x="{x + width - 84:g}" y="{y + 20:g}">protocol/</text>'


def main() -> None:
  (path,) = sys.argv[1:]
  pathlib.Path(path).write_text(picture())


if __name__ == '__main__':
  main()
