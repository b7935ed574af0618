"""Writes the page "When something goes wrong": python docs/troubleshooting.py FILE.md.

`make docs` does so. `troubleshooting.toml` says what each message means and what to do. The
messages themselves are read from the code. Refused are a message that no code has any more, and
one that a module of `complete` can tell a user while the table leaves it out.
"""

import ast
from collections.abc import Callable, Iterator
import pathlib
import re
import sys
import tomllib

ROOT = pathlib.Path(__file__).parents[1]
HOLE = '{}'  # for what the code fills in; the table writes a name between the braces
# Methods whose text reaches a user besides errors: a warning of the log, a word to the other party.
TELL = 'warning', 'error', 'exception', 'refuse', 'dismiss', 'abort'


def table() -> dict:
  """The head of the page, its sections, and the modules of which every message is explained."""
  return tomllib.loads((ROOT / 'docs' / 'troubleshooting.toml').read_text())


def texts(source: str) -> tuple[set[str], set[str]]:
  """The texts of a module with holes: all of them, and those that errors and warnings have."""
  tree = ast.parse(source)
  nodes = list(ast.walk(tree))
  # A piece of a longer text is none itself.
  pieces = {id(p) for node in nodes if isinstance(node, ast.JoinedStr) for p in node.values}
  every = {_text(node) for node in nodes if id(node) not in pieces and _is_text(node)}
  told = set(_told(nodes))
  return every | told, {text for text in told if re.search('[A-Za-z]', text)}


def _told(nodes: list[ast.AST]) -> Iterator[str]:
  raised = {id(node.exc) for node in nodes if isinstance(node, ast.Raise)}
  for call in nodes:
    if not isinstance(call, ast.Call):
      continue
    name = getattr(call.func, 'attr', getattr(call.func, 'id', ''))
    if name == '_log':  # (level, event, **fields), a line of a server's log
      level, event = call.args[:2]
      if getattr(level, 'attr', '') in ('WARNING', 'ERROR') and _is_text(event):
        fields = [f'{field.arg}={HOLE}' for field in call.keywords if field.arg != 'trace']
        yield ' '.join([f'event={_text(event)}', *fields])
    elif call.args and (id(call) in raised or name.endswith('Error')):
      yield from map(_text, _choices(call.args[0]))
    elif call.args and name in TELL:
      for node in _choices(call.args[0]):
        yield re.sub('%[sd]', HOLE, _text(node))


def _choices(node: ast.AST) -> list[ast.AST]:
  """A text, or both of a choice between two."""
  if isinstance(node, ast.IfExp):
    return _choices(node.body) + _choices(node.orelse)
  return [node] if _is_text(node) else []


def _is_text(node: ast.AST) -> bool:
  constant = isinstance(node, ast.Constant) and isinstance(node.value, str)
  return constant or isinstance(node, ast.JoinedStr)


def _text(node: ast.AST) -> str:
  parts = node.values if isinstance(node, ast.JoinedStr) else [node]
  return ' '.join(
    ''.join(str(p.value) if isinstance(p, ast.Constant) else HOLE for p in parts).split()
  )


def _source(module: str) -> str:
  return (ROOT / module).read_text()


def faults(found: dict, read: Callable[[str], str] = _source) -> list[str]:
  """What is wrong between a table and the code, a line each; `read` gives a module's source."""
  listed: dict[str, list[str]] = {module: [] for module in found['complete']}
  for section in found['section']:
    for entry in section['entry']:
      listed.setdefault(entry['module'], []).extend(entry['messages'])
  wrong = []
  for module, messages in listed.items():
    every, told = texts(read(module))
    without_names = {re.sub(r'\{[^{}]*\}', HOLE, message): message for message in messages}
    gone = [message for text, message in without_names.items() if text not in every]
    wrong += [f'{module} has no text {message!r} any more' for message in gone]
    if module in found['complete']:
      left_out = sorted(told - without_names.keys())
      wrong += [f'{module} has the message {text!r}, which is not explained' for text in left_out]
  return wrong


def page() -> str:
  """The page in Markdown; ValueError where table and code disagree."""
  found = table()
  if wrong := faults(found):
    raise ValueError('; '.join(wrong))
  text = found['head']
  for section in found['section']:
    text += f'\n## {section["title"]}\n\n'
    text += f'{section["about"]}\n\n' if 'about' in section else ''
    text += '| message | means | do |\n|---|---|---|\n'
    for entry in section['entry']:
      messages = '<br>'.join(map(_code, entry['messages']))
      text += f'| {messages} | {_cell(entry["means"])} | {_cell(entry["do"])} |\n'
  return text


def _code(text: str) -> str:
  fence, space = ('``', ' ') if '`' in text else ('`', '')
  return _cell(f'{fence}{space}{text}{space}{fence}')


def _cell(text: str) -> str:
  return text.replace('|', r'\|')


if __name__ == '__main__':
  pathlib.Path(sys.argv[1]).write_text(page())
