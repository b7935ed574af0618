"""Certificates, and connections with and without TLS."""

import pytest

from safenet_jax.transport import tls


@pytest.fixture(scope='session')
def files(tmp_path_factory):
  return tls.insecure_test_certificate(tmp_path_factory.mktemp('tls'))


@pytest.fixture(params=['clear', 'tls'])
def security(request):
  """What `peers.channels` takes for either kind of connection."""
  return request.getfixturevalue('files') if request.param == 'tls' else None
