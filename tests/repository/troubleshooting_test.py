"""The page "When something goes wrong" has the messages that the code has."""

import pathlib
import runpy
import types

ROOT = pathlib.Path(__file__).parents[2]
troubleshooting = types.SimpleNamespace(**runpy.run_path(str(ROOT / 'docs' / 'troubleshooting.py')))

SOURCE = """
def check(layers, ratios):
  if layers != ratios:
    raise ValueError(
      f'{ratios} ratios for {layers} layers, '
      'want one per layer'
    )
  raise ValueError('yes' if layers else f'no {layers}')
  return ProtocolError('the peer is gone')
  raise OSError(f'{layers}: {ratios}') from None  # all words are those of others
  label = 'any other text'
  _LOGGER.warning('event=lost count=%d reason="%s"', layers, ratios)
  _log(logging.WARNING, 'refused', peer=layers, reason=ratios, trace=True)
  _log(logging.INFO, 'listening', port=layers)
  channel.refuse('too late')
"""
TOLD = {
  '{} ratios for {} layers, want one per layer',
  'yes',
  'no {}',
  'the peer is gone',
  'event=lost count={} reason="{}"',
  'event=refused peer={} reason={}',
  'too late',
}


def faults(*messages, complete=False, source=SOURCE):
  """Of a table that explains these messages of a module with this source."""
  entry = {'module': 'a.py', 'messages': list(messages), 'means': '', 'do': ''}
  found = {'complete': ['a.py'] * complete, 'section': [{'title': '', 'entry': [entry]}]}
  return troubleshooting.faults(found, {'a.py': source}.get)


def test_the_page_has_the_texts_of_the_code():
  written = (ROOT / 'docs' / 'troubleshooting.md').read_text()
  assert written == troubleshooting.page(), 'run make docs'


def test_errors_warnings_and_refusals_are_messages():
  every, told = troubleshooting.texts(SOURCE)
  assert told == TOLD
  assert every > {*TOLD, 'any other text'} and ' ratios for ' not in every


def test_a_message_is_as_in_the_code_but_for_names_in_its_holes():
  assert faults('{count} ratios for {count} layers, want one per layer', 'any other text') == []


def test_a_text_that_the_code_has_changed_is_named():
  message = '{count} ratios for {count} layers, want one per layer'
  changed = SOURCE.replace('want one per layer', 'want one for each layer')
  assert faults(message, source=changed) == [f'a.py has no text {message!r} any more']


def test_a_message_that_is_not_explained_is_named_in_a_complete_module_only():
  some = TOLD - {'the peer is gone'}
  assert faults(*some) == []
  assert faults(*TOLD, complete=True) == []
  wanted = ["a.py has the message 'the peer is gone', which is not explained"]
  assert faults(*some, complete=True) == wanted


def test_cells_keep_a_table_a_table():
  assert troubleshooting._code('a|b') == r'`a\|b`'
  assert troubleshooting._code('name a `directory`') == '`` name a `directory` ``'
