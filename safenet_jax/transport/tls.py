"""TLS 1.3 between the parties; both contexts verify, and nothing switches that off."""

import datetime
import ipaddress
import os
import pathlib
import re
import ssl
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_Path = str | os.PathLike[str]
_TEST_DAYS = 7
_REVOCATION_LIST = b'-----BEGIN X509 CRL-----'
# Labels of letters, digits, hyphens and underscores (RFC 1123, section 2.1). The last one is no
# number: that would be an address, and a wrong one.
_NAME = re.compile(r'(?=.{1,253}$)(?!(.*\.)?\d+$)([a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}', re.I)


class CertificateFiles(NamedTuple):
  """PEM files. The certificate signs itself, so that it is also the authority to trust."""

  certificate: pathlib.Path
  key: pathlib.Path


def server_context(certificate: _Path, key: _Path, client_ca: _Path | None = None):
  """The server's `ssl.SSLContext`.

  Args:
    certificate, key: PEM files of its certificate chain and private key.
    client_ca: PEM file of authorities; if given, a client needs a certificate
      that one of them signed. With their revocation lists in the same file it has to be
      on none of them; then every authority needs a list that is up to date.

  Raises:
    ValueError: a file that is missing, or is not what it should be.
  """
  context = _context(ssl.PROTOCOL_TLS_SERVER, certificate, key)
  # A session is one connection here, so that nobody needs the tickets with which a second
  # connection could resume it. They would only be unread bytes at the end.
  context.num_tickets = 0
  if client_ca is not None:
    _trust(context, client_ca)
    context.verify_mode = ssl.CERT_REQUIRED
  return context


def client_context(
  ca: _Path | None = None, certificate: _Path | None = None, key: _Path | None = None
) -> ssl.SSLContext:
  """The client's context, which verifies the server's certificate and host name.

  Args:
    ca: PEM file of the authorities to trust, and of their revocation lists as for
      `server_context`; None for those of the system.
    certificate, key: PEM files, for a server that wants a certificate from its clients.

  Raises:
    ValueError: a file that is missing, or is not what it should be.
  """
  if (certificate is None) != (key is None):
    raise ValueError('a certificate without a key or a key without one, want both or neither')
  context = _context(ssl.PROTOCOL_TLS_CLIENT, certificate, key)
  if ca is None:
    context.load_default_certs(ssl.Purpose.SERVER_AUTH)
  else:
    _trust(context, ca)
  return context


def _context(protocol: int, certificate: _Path | None, key: _Path | None) -> ssl.SSLContext:
  context = ssl.SSLContext(protocol)
  context.minimum_version = ssl.TLSVersion.TLSv1_3
  if certificate is not None:
    try:
      # Without a password given here, an encrypted key would make OpenSSL ask at the terminal.
      context.load_cert_chain(certificate, key, password='')
    except OSError as error:
      raise ValueError(_fault(certificate, key or certificate, error)) from None
  return context


def _fault(certificate: _Path, key: _Path, error: OSError) -> str:
  """What is wrong with a certificate and its key. OpenSSL does not say which file it means."""
  try:
    chain, secret = (pathlib.Path(path).read_bytes() for path in (certificate, key))
  except OSError as unread:
    return f'{unread.filename}: {unread.strerror}'
  if b'CERTIFICATE-----' not in chain:
    return f'certificate {certificate}: no certificate in it, want a PEM file'
  if b'PRIVATE KEY-----' not in secret:
    return f'key {key}: no private key in it, want a PEM file'
  if b'ENCRYPTED' in secret:
    return f'key {key}: it is encrypted, want one without a password'
  reason = getattr(error, 'reason', None) or str(error)
  if 'MISMATCH' in reason:
    return f'key {key}: it is the key of another certificate than {certificate}'
  return f'certificate {certificate} with key {key}: {reason}'


def _trust(context: ssl.SSLContext, ca: _Path) -> None:
  try:
    context.load_verify_locations(ca)
    if _REVOCATION_LIST in pathlib.Path(ca).read_bytes():
      # Without this flag OpenSSL reads the lists and never looks at them.
      context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
  except ssl.SSLError:
    raise ValueError(f'authorities {ca}: no certificate in it, want a PEM file') from None
  except OSError as error:
    raise ValueError(f'authorities {ca}: {error.strerror or error}') from None


def insecure_test_certificate(
  directory: _Path, hosts: tuple[str, ...] = ('localhost', '127.0.0.1', '::1')
) -> CertificateFiles:
  """Writes a self-signed certificate for tests and first steps, good for a week.

  Insecure: nobody vouches for it, and its key lies unencrypted beside it.

  Args:
    directory: gets insecure_test_certificate.pem and insecure_test_key.pem.
    hosts: names and addresses that the certificate is for.

  Raises:
    ValueError: one of them is neither a name nor an address; nothing is written.
    OSError: the files cannot be written there.
  """
  names = [_alternative(host) for host in hosts]
  directory = pathlib.Path(directory)
  directory.mkdir(parents=True, exist_ok=True)
  key = ec.generate_private_key(ec.SECP256R1())
  public = key.public_key()
  name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, 'insecure test certificate')])
  now = datetime.datetime.now(datetime.UTC)
  usage = dict.fromkeys(
    (
      'content_commitment',
      'key_encipherment',
      'data_encipherment',
      'key_agreement',
      'crl_sign',
      'encipher_only',
      'decipher_only',
    ),
    False,
  )
  extensions: list[tuple[x509.ExtensionType, bool]] = [
    (x509.BasicConstraints(ca=True, path_length=0), True),
    (x509.KeyUsage(digital_signature=True, key_cert_sign=True, **usage), True),
    (
      x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
      False,
    ),
    (x509.SubjectAlternativeName(names), False),
    (x509.SubjectKeyIdentifier.from_public_key(public), False),
    (x509.AuthorityKeyIdentifier.from_issuer_public_key(public), False),
  ]
  builder = (
    x509.CertificateBuilder()
    .subject_name(name)
    .issuer_name(name)
    .public_key(public)
    .serial_number(x509.random_serial_number())
    .not_valid_before(now - datetime.timedelta(hours=1))
    .not_valid_after(now + datetime.timedelta(days=_TEST_DAYS))
  )
  for extension, critical in extensions:
    builder = builder.add_extension(extension, critical)
  files = CertificateFiles(
    directory / 'insecure_test_certificate.pem', directory / 'insecure_test_key.pem'
  )
  pem = serialization.Encoding.PEM
  files.certificate.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(pem))
  files.key.unlink(missing_ok=True)
  # The key is never readable for others: not even for a moment, as it would be before a chmod.
  with open(os.open(files.key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), 'wb') as file:
    file.write(
      key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
  return files


def _alternative(host: str) -> x509.GeneralName:
  try:
    return x509.IPAddress(ipaddress.ip_address(host))
  except ValueError:
    if not _NAME.fullmatch(host):
      raise ValueError(
        f'host {host!r}, want an address, or a name of ASCII letters, digits, hyphens and dots'
      ) from None
    return x509.DNSName(host)
