"""An authority for tests, which signs whatever a test needs: expired, revoked, for other uses."""

import datetime
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from safenet_jax.transport import tls

BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
_PEM = serialization.Encoding.PEM


def days(number):
  """The time in so many days."""
  return datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=number)


class Authority:
  """Signs certificates for 127.0.0.1, and says which of them it has revoked."""

  def __init__(self, directory):
    self._directory, self._count = directory, 0
    self._key = ec.generate_private_key(ec.SECP256R1())
    self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, 'authority for tests')])
    self._ca = (
      x509.CertificateBuilder()
      .subject_name(self._name)
      .issuer_name(self._name)
      .public_key(self._key.public_key())
      .serial_number(x509.random_serial_number())
      .not_valid_before(days(-9))
      .not_valid_after(days(9))
      .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
      .sign(self._key, hashes.SHA256())
    )
    self.file = self._write('ca.pem', self._ca.public_bytes(_PEM))

  def issue(self, start=-1, end=1, usages=BOTH):
    """Files of a certificate that is good from and to so many days from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    self._count += 1
    host = x509.IPAddress(ipaddress.ip_address('127.0.0.1'))
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f'party {self._count}')])
    found = (
      x509.CertificateBuilder()
      .subject_name(name)
      .issuer_name(self._name)
      .public_key(key.public_key())
      .serial_number(x509.random_serial_number())
      .not_valid_before(days(start))
      .not_valid_after(days(end))
      .add_extension(x509.SubjectAlternativeName([host]), False)
      .add_extension(x509.ExtendedKeyUsage(usages), False)
      .sign(self._key, hashes.SHA256())
    )
    private = key.private_bytes(
      _PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return tls.CertificateFiles(
      self._write(f'{self._count}.pem', found.public_bytes(_PEM)),
      self._write(f'{self._count}_key.pem', private),
    )

  def revoking(self, *files, end=1):
    """A file of the authority with a list of revoked certificates, good for `end` days."""
    builder = x509.CertificateRevocationListBuilder().issuer_name(self._name)
    builder = builder.last_update(days(-2)).next_update(days(end))
    for each in files:
      serial = x509.load_pem_x509_certificate(each.certificate.read_bytes()).serial_number
      revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(days(-1))
      builder = builder.add_revoked_certificate(revoked.build())
    self._count += 1
    listed = builder.sign(self._key, hashes.SHA256()).public_bytes(_PEM)
    return self._write(f'{self._count}_revoked.pem', self._ca.public_bytes(_PEM) + listed)

  def _write(self, name, content):
    path = self._directory / name
    path.write_bytes(content)
    return path
