"""A report as a list of blocks, written as Markdown, as csv, and as one HTML page.

The page needs no network: pictures and csv files are in it as data URIs.
"""

import base64
from collections.abc import Iterator, Mapping, Sequence
import html
import importlib.resources
import itertools
import pathlib
import re
from typing import Any, NamedTuple

from safenet_jax import atomic_files
from safenet_jax.report import figures, tables

# Pictures and csv files are in this folder beside the report.
FOLDER = 'report'
# What a cell says when the run that would fill it is missing, and when no run could fill it.
NOT_RUN = 'not run'
NOTHING = '–'
# The page gives cells of more characters than LONG some width, and of more than LONGER more.
LONG, LONGER = 28, 80


class Heading(NamedTuple):
  """A title; level 2 and deeper, as level 1 is the report's own."""

  level: int
  text: str


class Text(NamedTuple):
  """A paragraph, in which `backquotes` are code."""

  text: str


class Table(NamedTuple):
  """A table, which is also written to <name>.csv; the first column names its row.

  grouped: the page shows the first column as a line above the rows that share it.
  """

  name: str
  title: str
  header: Sequence[str]
  rows: Sequence[Sequence[Any]]
  grouped: bool = False


class Picture(NamedTuple):
  """A figure, which is drawn to <name>.png; the columns that `draw` returns go to <name>.csv."""

  name: str
  title: str
  draw: figures.Draw
  size: tuple[float, float] = (6.4, 3.6)


class Details(NamedTuple):
  """Blocks that the page shows folded up."""

  title: str
  blocks: Sequence[Any]


Block = Heading | Text | Table | Picture | Details


def flat(blocks: Sequence[Block]) -> Iterator[Block]:
  """The blocks in order; `Details` become a heading and their blocks."""
  for block in blocks:
    if isinstance(block, Details):
      yield Heading(3, block.title)
      yield from flat(block.blocks)
    else:
      yield block


def write(directory: pathlib.Path, title: str, blocks: Sequence[Block]) -> None:
  """Writes report.md, report.html and the folder of pictures and csv files."""
  folder = directory / FOLDER
  folder.mkdir(parents=True, exist_ok=True)
  for block in flat(blocks):
    if isinstance(block, Picture):
      figures.save(folder / block.name, block.draw, figure_size=block.size)
    elif isinstance(block, Table):
      figures.write_csv(folder / f'{block.name}.csv', [block.header, *block.rows])
  atomic_files.write_text(directory / 'report.md', markdown(title, blocks))
  atomic_files.write_text(directory / 'report.html', page(title, blocks, folder))


def markdown(title: str, blocks: Sequence[Block]) -> str:
  """The report as Markdown; pictures are named, not contained."""
  parts = [f'# {title}']
  for block in flat(blocks):
    match block:
      case Heading(level, text):
        parts.append(f'{"#" * level} {text}')
      case Text(text):
        parts.append(text)
      case Table(name, caption, header, rows, _):
        parts.append(f'{caption} ([csv]({FOLDER}/{name}.csv))')
        parts.append(tables.markdown(header, rows).rstrip())
      case Picture(name, caption):
        parts.append(f'![{caption}]({FOLDER}/{name}.png)')
        parts.append(f'{caption} ([csv]({FOLDER}/{name}.csv))')
  return '\n\n'.join(parts) + '\n'


def page(title: str, blocks: Sequence[Block], folder: pathlib.Path) -> str:
  """The report as one HTML page; `folder` has its pictures and csv files."""
  template = importlib.resources.files(__package__).joinpath('page.html').read_text()
  links = ''.join(
    f'<li><a href="#{_identifier(block.text)}">{_inline(block.text)}</a></li>\n'
    for block in blocks
    if isinstance(block, Heading) and block.level == 2
  )
  return _fill(
    template,
    {
      'title': html.escape(title),
      'links': links,
      'body': '\n'.join(_html(block, folder) for block in blocks),
    },
  )


def _fill(template: str, values: Mapping[str, str]) -> str:
  return re.sub(r'\{\{(\w+)\}\}', lambda match: values[match[1]], template)


def _html(block: Block, folder: pathlib.Path) -> str:
  match block:
    case Heading(level, text):
      return f'<h{level} id="{_identifier(text)}">{_inline(text)}</h{level}>'
    case Text(text):
      return f'<p>{_inline(text)}</p>'
    case Table(name, caption, header, rows, grouped):
      head = ''.join(f'<th scope="col">{_inline(str(cell))}</th>' for cell in header[grouped:])
      return (
        f'<figure><figcaption>{_inline(caption)} {_download(folder, name)}</figcaption>\n'
        f'<div class="scroll" role="region" tabindex="0" aria-label="{html.escape(caption)}">'
        f'<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{_body(rows, grouped)}\n</tbody>'
        '</table></div></figure>'
      )
    case Picture(name, caption):
      image = _data_uri('image/png', (folder / f'{name}.png').read_bytes())
      return (
        f'<figure><img src="{image}" alt="{html.escape(caption)}">'
        f'<figcaption>{_inline(caption)} {_download(folder, name)}</figcaption></figure>'
      )
    case Details(caption, inner):
      body = '\n'.join(_html(one, folder) for one in inner)
      return f'<details><summary>{_inline(caption)}</summary>\n{body}\n</details>'


def _body(rows: Sequence[Sequence[Any]], grouped: bool) -> str:
  lines = []
  for first, some in itertools.groupby(rows, key=lambda row: str(row[0])):
    group = list(some)
    over = f' rowspan="{len(group)}" scope="rowgroup"' if len(group) > 1 else ' scope="row"'
    heads = [f'<th{over}>{_inline(first)}</th>', *[''] * (len(group) - 1)]
    if grouped:
      lines.append(
        f'<tr class="group"><th colspan="{len(group[0]) - 1}" scope="rowgroup">{_inline(first)}'
        '</th></tr>'
      )
      heads = [f'<th scope="row">{_inline(str(row[1]))}</th>' for row in group]
    for head, row in zip(heads, group):
      cells = ''.join(map(_cell, map(str, row[1 + grouped :])))
      lines.append(f'<tr>{head}{cells}</tr>')
  return '\n'.join(lines)


def _cell(text: str) -> str:
  kind = (
    'none'
    if text in (NOT_RUN, NOTHING)
    else 'longer'
    if len(text) > LONGER
    else 'long'
    if len(text) > LONG
    else ''
  )
  return (f'<td class="{kind}">' if kind else '<td>') + f'{_inline(text)}</td>'


def _inline(text: str) -> str:
  return re.sub(r'`([^`]+)`', r'<code>\1</code>', html.escape(text))


def _identifier(text: str) -> str:
  return re.sub(r'\W+', '-', text.lower()).strip('-')


def _download(folder: pathlib.Path, name: str) -> str:
  data = _data_uri('text/csv', (folder / f'{name}.csv').read_bytes())
  return f'<a download="{name}.csv" href="{data}">csv</a>'


def _data_uri(kind: str, data: bytes) -> str:
  return f'data:{kind};base64,{base64.b64encode(data).decode()}'
