"""Certificates, connections with and without TLS, and what a missing data set means.

SAFENET_REQUIRE_DATA=1 turns a skipped test into a failed one: no data, no green.
"""

import os

import pytest

from safenet_jax.transport import tls


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
  report = yield
  if report.skipped and os.environ.get('SAFENET_REQUIRE_DATA'):
    report.outcome = 'failed'
    report.longrepr = f'{item.nodeid} was skipped where data is required: {call.excinfo.value}'
  return report


@pytest.fixture(scope='session')
def files(tmp_path_factory):
  return tls.insecure_test_certificate(tmp_path_factory.mktemp('tls'))


@pytest.fixture(params=['clear', 'tls'])
def security(request):
  """What `peers.channels` takes for either kind of connection."""
  return request.getfixturevalue('files') if request.param == 'tls' else None
