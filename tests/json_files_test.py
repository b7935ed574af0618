"""JSON files name file and line of what is wrong; half a line at the end is dropped."""

import resource

import pytest

from safenet_jax import json_files

WHOLE = '{"step": 1}\n{"step": 2}\n'


@pytest.mark.parametrize('rest', ['{"step', '{"step": "ü'.encode()[:-1], b'\0' * 9, '{"step": 3,'])
def test_an_unfinished_last_line_is_dropped_and_the_next_takes_its_place(tmp_path, rest, caplog):
  path = tmp_path / 'log.jsonl'
  path.write_bytes(WHOLE.encode() + (rest if isinstance(rest, bytes) else rest.encode()))
  assert json_files.read_lines(path) == [{'step': 1}, {'step': 2}]
  assert f'{path}, line 3: dropped' in caplog.text
  json_files.append_line(path, {'step': 3})
  assert path.read_text() == WHOLE + '{"step": 3}\n'


def test_a_last_line_without_its_end_is_kept(tmp_path):
  path = tmp_path / 'log.jsonl'
  path.write_text(WHOLE.rstrip())
  json_files.append_line(path, {'step': 3})
  assert path.read_text() == WHOLE + '{"step": 3}\n'
  json_files.append_line(tmp_path / 'new.jsonl', {'step': 1})
  assert json_files.read_lines(tmp_path / 'new.jsonl') == [{'step': 1}]


@pytest.mark.parametrize(
  'line, reason',
  [
    ('{"step": 1, "lo', 'invalid control character|unterminated string'),
    ('[1]', 'want an object with step'),
    ('{"stop": 1}', 'want an object with step'),
    ('', 'expecting value'),
  ],
)
def test_any_other_line_is_an_error_of_file_and_line(tmp_path, line, reason):
  path = tmp_path / 'log.jsonl'
  path.write_text(f'{{"step": 1}}\n{line}\n{{"step": 2}}\n')
  with pytest.raises(ValueError, match=rf'log.jsonl, line 2: .*({reason}).*: delete that line$'):
    json_files.read_lines(path, ('step',))


@pytest.mark.parametrize(
  'text, message',
  [
    (b'', 'is empty'),
    (b' \n', 'is empty'),
    (b'{\n "a": 1,\n "b', 'line 3: unterminated string'),
    (b'{"a": 1}\n}', 'line 2: extra data'),
    (b'{\n\xff}', 'line 2: no UTF-8 text'),
  ],
)
def test_a_damaged_file_is_named_with_its_line_and_what_to_do(tmp_path, text, message):
  path = tmp_path / 'plan.json'
  path.write_bytes(text)
  with pytest.raises(ValueError, match=f'plan.json.* {message}, want JSON: write it again$'):
    json_files.read(path, mend='write it again')


def test_a_full_disk_leaves_the_lines_as_they_were(tmp_path):
  path = tmp_path / 'log.jsonl'
  path.write_text(WHOLE)
  # A limit on the size of a file ends a write in the middle, as a full disk does.
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (len(WHOLE) + 4, limits[1]))
  try:
    with pytest.raises(OSError, match='File too large') as caught:
      json_files.append_line(path, {'step': 3})
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert caught.value.filename == str(path) and path.read_text() == WHOLE
  json_files.append_line(path, {'step': 3})
  assert [line['step'] for line in json_files.read_lines(path)] == [1, 2, 3]
