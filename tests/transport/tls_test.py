"""Who may talk to whom over TLS."""

from concurrent import futures
import hashlib
import os
import socket
import ssl

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID
import pytest

from safenet_jax.transport import channel as channels
from safenet_jax.transport import listener as listeners
from safenet_jax.transport import stream, tls
from safenet_jax.transport.frames import ProtocolError
from tests.support import certificates, servers


@pytest.fixture(scope='module')
def others(tmp_path_factory):
  """A certificate that nobody here trusts."""
  return tls.insecure_test_certificate(tmp_path_factory.mktemp('others'))


def echo(channel, guest):
  channel.send('echo', *channel.receive('say', [(bytes, (2,))]))


def ask(address, context, host='127.0.0.1'):
  """Connects, says two bytes, and returns the echo and the TLS version."""
  with channels.connect(host, address[1], context=context, timeout=300) as channel:
    channel.send('say', b'hi')
    return channel.receive('echo', [(bytes, (2,))])[0]


@pytest.fixture
def server(files):
  with listeners.Listener(
    '127.0.0.1', 0, echo, context=tls.server_context(*files), timeout=300
  ) as listening:
    yield listening


def test_a_client_that_trusts_the_certificate_is_served(server, files):
  assert ask(server.address, tls.client_context(files.certificate)) == b'hi'
  assert ask(server.address, tls.client_context(files.certificate), 'localhost') == b'hi'


def test_a_client_with_another_authority_refuses_the_server(server, others):
  with pytest.raises(ProtocolError, match='the certificate is not trusted'):
    ask(server.address, tls.client_context(others.certificate))
  with pytest.raises(ProtocolError, match='the certificate is not trusted'):
    ask(server.address, tls.client_context())  # the system's authorities


def test_a_certificate_for_another_host_is_refused(tmp_path):
  files = tls.insecure_test_certificate(tmp_path, ('example.org',))
  with (
    listeners.Listener('127.0.0.1', 0, echo, context=tls.server_context(*files)) as server,
    pytest.raises(ProtocolError, match='not trusted: .*IP address mismatch'),
  ):
    ask(server.address, tls.client_context(files.certificate))


def test_a_server_that_wants_client_certificates_gets_them(files, others):
  context = tls.server_context(*files, client_ca=files.certificate)
  with listeners.Listener('127.0.0.1', 0, echo, context=context, timeout=300) as server:
    trusted = tls.client_context(files.certificate, *files)
    assert ask(server.address, trusted) == b'hi'
    for refused in (
      tls.client_context(files.certificate),
      tls.client_context(files.certificate, *others),
    ):
      with pytest.raises(ProtocolError):
        ask(server.address, refused)
    assert ask(server.address, trusted) == b'hi'


def refused(server, context, caplog):
  """Why a server ended a client's session."""
  caplog.clear()
  with pytest.raises(ProtocolError):
    ask(server.address, context)
  servers.until(lambda: servers.lines(caplog, 'session_failed'))
  return servers.lines(caplog, 'session_failed')[0]


@pytest.fixture(scope='module')
def authority(tmp_path_factory):
  return certificates.Authority(tmp_path_factory.mktemp('authority'))


BAD = {
  'expired': ({'start': -2, 'end': -1}, 'certificate has expired'),
  'not yet valid': ({'start': 1, 'end': 2}, 'certificate is not yet valid'),
  'another use': ({'usages': [ExtendedKeyUsageOID.EMAIL_PROTECTION]}, 'unsuitable certificate'),
}


@pytest.mark.parametrize('kind', BAD)
def test_a_bad_certificate_of_the_server_is_refused(authority, kind):
  options, reason = BAD[kind]
  bad = authority.issue(**options)
  with (
    listeners.Listener('127.0.0.1', 0, echo, context=tls.server_context(*bad)) as server,
    pytest.raises(ProtocolError, match=f'not trusted: {reason}'),
  ):
    ask(server.address, tls.client_context(authority.file))


@pytest.mark.parametrize('kind', BAD)
def test_a_bad_certificate_of_a_client_is_refused(authority, kind, caplog):
  options, reason = BAD[kind]
  context = tls.server_context(*authority.issue(), client_ca=authority.file)
  with listeners.Listener('127.0.0.1', 0, echo, context=context, timeout=5) as server:
    bad = tls.client_context(authority.file, *authority.issue(**options))
    assert f'not trusted: {reason}' in refused(server, bad, caplog)
    assert ask(server.address, tls.client_context(authority.file, *authority.issue())) == b'hi'


def test_certificates_for_the_other_party_are_refused(authority, caplog):
  """A client's stolen certificate makes no server, and a server's no client."""
  client = authority.issue(usages=[ExtendedKeyUsageOID.CLIENT_AUTH])
  server = authority.issue(usages=[ExtendedKeyUsageOID.SERVER_AUTH])
  trusted = tls.client_context(authority.file, *client)
  context = tls.server_context(*client)
  with (
    listeners.Listener('127.0.0.1', 0, echo, context=context) as listening,
    pytest.raises(ProtocolError, match='not trusted: unsuitable certificate purpose'),
  ):
    ask(listening.address, trusted)
  context = tls.server_context(*server, client_ca=authority.file)
  with listeners.Listener('127.0.0.1', 0, echo, context=context, timeout=5) as listening:
    assert ask(listening.address, trusted) == b'hi'
    bad = tls.client_context(authority.file, *server)
    assert 'unsuitable certificate purpose' in refused(listening, bad, caplog)


def test_revoked_certificates_are_refused_on_both_sides(authority, caplog):
  good, bad = authority.issue(), authority.issue()
  listed = authority.revoking(bad)
  with (
    listeners.Listener('127.0.0.1', 0, echo, context=tls.server_context(*bad)) as server,
    pytest.raises(ProtocolError, match='not trusted: certificate revoked'),
  ):
    ask(server.address, tls.client_context(listed))
  context = tls.server_context(*good, client_ca=listed)
  with listeners.Listener('127.0.0.1', 0, echo, context=context, timeout=5) as server:
    assert ask(server.address, tls.client_context(listed, *good)) == b'hi'
    line = refused(server, tls.client_context(listed, *bad), caplog)
    assert 'certificate revoked' in line


def test_a_list_that_is_out_of_date_lets_nobody_pass(authority):
  with (
    listeners.Listener('127.0.0.1', 0, echo, context=tls.server_context(*authority.issue())) as s,
    pytest.raises(ProtocolError, match='not trusted: CRL has expired'),
  ):
    ask(s.address, tls.client_context(authority.revoking(end=-1)))


def test_another_authority_of_the_same_name_is_refused(authority, tmp_path, caplog):
  other = certificates.Authority(tmp_path)
  context = tls.server_context(*authority.issue(), client_ca=authority.file)
  with listeners.Listener('127.0.0.1', 0, echo, context=context, timeout=5) as server:
    with pytest.raises(ProtocolError, match='the certificate is not trusted'):
      ask(server.address, tls.client_context(other.file, *authority.issue()))
    servers.until(lambda: servers.lines(caplog, 'session_failed'))
    line = refused(server, tls.client_context(authority.file, *other.issue()), caplog)
    assert 'the certificate is not trusted' in line


def test_a_client_is_known_by_its_certificate(authority):
  seen = []

  def note(channel, guest):
    seen.append(guest.visitor)
    echo(channel, guest)

  client = authority.issue()
  context = tls.server_context(*authority.issue(), client_ca=authority.file)
  with listeners.Listener('127.0.0.1', 0, note, context=context, timeout=5) as server:
    assert ask(server.address, tls.client_context(authority.file, *client)) == b'hi'
  context = tls.server_context(*authority.issue())
  with listeners.Listener('127.0.0.1', 0, note, context=context, timeout=5) as server:
    # A server without authorities for clients does not ask for their certificates.
    assert ask(server.address, tls.client_context(authority.file, *client)) == b'hi'
  raw = ssl.PEM_cert_to_DER_cert(client.certificate.read_text())
  assert seen[0] == ('127.0.0.1', hashlib.sha256(raw).hexdigest(), None)
  assert seen[1] == ('127.0.0.1', None, None)


def test_a_client_in_the_clear_is_not_served(server, files):
  with pytest.raises(ProtocolError, match='does not speak this protocol|closed|gone'):
    ask(server.address, None)
  assert ask(server.address, tls.client_context(files.certificate)) == b'hi'


def test_a_tls_client_is_not_served_in_the_clear(files):
  with listeners.Listener('127.0.0.1', 0, echo, context=None, timeout=300) as server:
    with pytest.raises(ProtocolError, match='127.0.0.1:.*TLS|closed|gone'):
      ask(server.address, tls.client_context(files.certificate))
    assert ask(server.address, None) == b'hi'


def test_older_versions_of_tls_are_refused(server, files):
  assert tls.server_context(*files).minimum_version is ssl.TLSVersion.TLSv1_3
  assert tls.client_context().minimum_version is ssl.TLSVersion.TLSv1_3
  old = tls.client_context(files.certificate)
  old.minimum_version = ssl.TLSVersion.TLSv1_2
  old.maximum_version = ssl.TLSVersion.TLSv1_2
  with pytest.raises(ProtocolError, match='TLS'):
    ask(server.address, old)


def test_a_context_that_does_not_verify_is_refused(server):
  trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
  trusting.check_hostname = False
  with pytest.raises(ValueError, match='does not verify the server'):
    ask(server.address, trusting)
  trusting.verify_mode = ssl.CERT_NONE
  with pytest.raises(ValueError, match='does not verify the server'):
    ask(server.address, trusting)


def test_the_test_certificate_says_that_it_is_insecure(files):
  assert oct(os.stat(files.key).st_mode & 0o777) == '0o600'
  assert 'insecure_test' in files.certificate.name and 'insecure_test' in files.key.name
  found = x509.load_pem_x509_certificate(files.certificate.read_bytes())
  assert found.subject.rfc4514_string() == 'CN=insecure test certificate'
  assert (found.not_valid_after_utc - found.not_valid_before_utc).days <= 7


def test_an_encrypted_key_is_refused_instead_of_asked_for(files, tmp_path):
  key = serialization.load_pem_private_key(files.key.read_bytes(), None)
  encrypted = tmp_path / 'key.pem'
  encrypted.write_bytes(
    key.private_bytes(
      serialization.Encoding.PEM,
      serialization.PrivateFormat.PKCS8,
      serialization.BestAvailableEncryption(b'secret'),
    )
  )
  with pytest.raises(
    ValueError, match=f'key {encrypted}: it is encrypted, want one without a pass'
  ):
    tls.server_context(files.certificate, encrypted)


def test_a_new_certificate_replaces_an_old_one(tmp_path):
  first = tls.insecure_test_certificate(tmp_path).key.read_bytes()
  files = tls.insecure_test_certificate(tmp_path)
  assert files.key.read_bytes() != first
  tls.server_context(*files)


@pytest.mark.parametrize(
  'make, message',
  [
    (lambda f, o: tls.server_context(f.certificate, o.key), 'key .* is the key of another cert'),
    (lambda f, o: tls.server_context(f.key, f.key), 'certificate .*: no certificate in it, want'),
    (lambda f, o: tls.server_context(f.certificate, f.certificate), 'key .*: no private key in it'),
    (lambda f, o: tls.server_context('missing.pem', f.key), '^missing.pem: No such file'),
    (lambda f, o: tls.server_context(f.certificate, 'missing.pem'), '^missing.pem: No such file'),
    (lambda f, o: tls.server_context(f.certificate.parent, f.key), 'Is a directory'),
    (lambda f, o: tls.server_context(*f, client_ca='missing.pem'), 'authorities missing.pem'),
    (lambda f, o: tls.client_context('missing.pem'), 'authorities missing.pem: No such file'),
    (lambda f, o: tls.client_context(f.key), 'authorities .*insecure_test_key.pem: no certific'),
    (lambda f, o: tls.client_context(None, f.certificate), 'want both or neither'),
  ],
)
def test_wrong_files_are_one_line(files, others, make, message):
  with pytest.raises(ValueError, match=message) as caught:
    make(files, others)
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize('host', ['', 'a..b', '.b', 'bücher', '10.0.0.256', 'http://a', 'x' * 64])
def test_a_certificate_is_for_names_and_addresses(tmp_path, host):
  with pytest.raises(ValueError, match='want an address, or a name of ASCII letters'):
    tls.insecure_test_certificate(tmp_path / 'new', ('localhost', host))
  assert not (tmp_path / 'new').exists()


@pytest.mark.parametrize(
  'host, port, message',
  [
    ('127.0.0.1', 99999, 'port 99999, want 1 to 65535'),
    ('127.0.0.1', -1, 'port -1, want 1 to 65535'),
    ('a..b', 7341, "host 'a..b', want the name or address of a server"),
    ('x' * 64, 7341, "host 'xxx.*want the name or address of a server"),
  ],
)
def test_what_cannot_be_a_server_is_refused(host, port, message):
  with pytest.raises(ValueError, match=message):
    channels.connect(host, port, context=None)


def test_nobody_listening_is_one_line():
  with socket.create_server(('127.0.0.1', 0)) as taken:
    port = taken.getsockname()[1]
  with pytest.raises(ProtocolError, match=f'127.0.0.1:{port}: .*Connection refused'):
    channels.connect('127.0.0.1', port, context=None)


def test_a_peer_that_is_gone_is_no_fault_of_tls():
  error = ssl.SSLEOFError(8, 'EOF occurred in violation of protocol (_ssl.c:2427)')
  assert str(stream.describe(error)) == 'the peer closed the connection'


def test_a_server_that_does_not_answer_the_handshake_is_a_timeout(files):
  with (
    socket.create_server(('127.0.0.1', 0)) as silent,
    futures.ThreadPoolExecutor(1) as pool,
  ):
    context = tls.client_context(files.certificate)
    running = pool.submit(
      channels.connect, '127.0.0.1', silent.getsockname()[1], context=context, timeout=0.3
    )
    with pytest.raises(ProtocolError, match='timeout'):
      running.result(200)
