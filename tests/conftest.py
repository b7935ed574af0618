"""SAFENET_REQUIRE_DATA=1 turns a skipped test into a failed one: no data, no green."""

import os

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
  report = yield
  if report.skipped and os.environ.get('SAFENET_REQUIRE_DATA'):
    report.outcome = 'failed'
    report.longrepr = f'{item.nodeid} was skipped where data is required: {call.excinfo.value}'
  return report
