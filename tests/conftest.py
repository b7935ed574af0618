"""What all tests share: compiled functions, certificates, connections, and a last line.

SAFENET_REQUIRE_DATA=1 turns a skipped test into a failed one: no data, no green.
"""

import os
import resource
import time

import pytest

from safenet_jax.transport import tls
from tests.support import compilations

compilations.share()

STARTED = time.monotonic()
# Files that take longest go first, so that no worker is left with one of them at the end.
LONGEST = (
  'experiments/commands_test.py',
  'search/sharded_test.py',
  'experiments/finetune_test.py',
  'search/members_test.py',
  'search/planners/btpbt_test.py',
  'search/planners/algorithms_test.py',
  'protocol/delphi/parties_test.py',
  'protocol/simulation/simulator_test.py',
  'experiments/lib/teacher_test.py',
  'experiments/notebooks_test.py',
  'experiments/own_network_test.py',
)
# MB resident at most, of every process that ran tests.
peaks = []


def pytest_collection_modifyitems(items):
  def place(item):
    path = item.path.as_posix()
    return next((n for n, end in enumerate(LONGEST) if path.endswith(f'/{end}')), len(LONGEST))

  items.sort(key=place)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
  report = yield
  if report.skipped and os.environ.get('SAFENET_REQUIRE_DATA'):
    report.outcome = 'failed'
    report.longrepr = f'{item.nodeid} was skipped where data is required: {call.excinfo.value}'
  return report


def pytest_sessionfinish(session):
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
  if hasattr(session.config, 'workeroutput'):
    session.config.workeroutput['peak'] = peak
  elif not peaks:
    peaks.append(peak)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
  peaks.append(getattr(node, 'workeroutput', {}).get('peak', 0))


def pytest_terminal_summary(terminalreporter):
  tests = sum(len(terminalreporter.getreports(name)) for name in ('passed', 'failed'))
  terminalreporter.write_line(
    f'{tests:,} tests in {time.monotonic() - STARTED:.0f} s; '
    f'a process of tests had up to {max(peaks, default=0):,.0f} MB resident'
  )


@pytest.fixture(scope='module', autouse=True)
def compiled():
  """The functions that a file has compiled are freed with it: all of them are gigabytes."""
  yield
  compilations.forget()


@pytest.fixture(scope='session')
def files(tmp_path_factory):
  return tls.insecure_test_certificate(tmp_path_factory.mktemp('tls'))


@pytest.fixture(params=['clear', 'tls'])
def security(request):
  """What `peers.channels` takes for either kind of connection."""
  return request.getfixturevalue('files') if request.param == 'tls' else None
