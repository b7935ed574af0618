"""The table of mutations is about the code as it is."""

import ast
import pathlib

import pytest

from tests.mutants import __main__ as round_
from tests.mutants import table

ROOT = pathlib.Path(__file__).parents[2]
MUTATIONS = table.load()


def test_every_old_text_is_in_its_file_once_and_the_new_one_is_a_program():
  for mutation in MUTATIONS:
    before = (ROOT / 'safenet_jax' / mutation.path).read_text()
    after = mutation.apply(ROOT)
    assert after != before, mutation
    ast.parse(after)


def test_a_text_that_is_gone_is_noticed():
  gone = MUTATIONS[0]._replace(old='nowhere')
  with pytest.raises(ValueError, match="0 places with 'nowhere', want one"):
    gone.apply(ROOT)


def test_there_are_a_hundred_and_each_has_its_tests_and_a_reason():
  assert len(MUTATIONS) >= 100
  for mutation in MUTATIONS:
    assert mutation.breaks and mutation.tests, mutation
    assert all((ROOT / 'tests' / name.partition('::')[0]).exists() for name in mutation.tests), (
      mutation
    )


@pytest.mark.slow
def test_a_round_names_the_test_that_fails_and_what_survives(capsys, monkeypatch):
  (first,) = (m for m in MUTATIONS if m.path == 'crypto/bit_packing.py')
  survivor = first._replace(old='def size(', new='def size (', breaks='nothing')
  monkeypatch.setattr(table, 'load', lambda: [first, survivor])
  assert round_.main([]) == 1
  killed, survived, last = capsys.readouterr().out.splitlines()
  assert 'killed' in killed and 'bit_packing_test.py::test_unpacking' in killed
  assert survived.startswith('! survived') and '2 mutations, 1 not as the table' in last
