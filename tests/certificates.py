"""Certificates that are made when a test needs them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from twisted.internet.ssl import CertificateOptions

DAY = timedelta(days=1)


class Authority:
    """An issuer that nobody knows, unless its certificate is in a `ca_file`."""

    def __init__(self, name: str = "an authority of tests", days: int = 1) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        builder = _builder(self._name, self._name, self._key, days)
        builder = builder.add_extension(constraints, critical=True)
        self.certificate = builder.sign(self._key, SHA256())

    def write(self, path: Path) -> Path:
        """Its own certificate, in PEM."""
        return write(path, self.certificate)

    def issue(
        self, host: str, days: int = 1, since: int = -10, chain: bool = False
    ) -> CertificateOptions:
        """What a server of that name or address needs; with negative `days` it has expired.

        `since`: from so many days on it is valid, in the future with a positive number. `chain`:
        it sends its authority's certificate as well.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a server of tests")])
        alternative = x509.SubjectAlternativeName([_general(host)])
        builder = _builder(name, self._name, key, days, since)
        certificate = builder.add_extension(alternative, critical=False).sign(self._key, SHA256())
        more = [self.certificate] if chain else None
        return CertificateOptions(privateKey=key, certificate=certificate, extraCertChain=more)


def self_signed(host: str) -> tuple[CertificateOptions, x509.Certificate]:
    """What a server needs that vouches for itself, and its certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a server of tests")])
    alternative = x509.SubjectAlternativeName([_general(host)])
    builder = _builder(name, name, key).add_extension(alternative, critical=False)
    certificate = builder.sign(key, SHA256())
    return CertificateOptions(privateKey=key, certificate=certificate), certificate


def write(path: Path, certificate: x509.Certificate) -> Path:
    """A certificate, in PEM."""
    path.write_bytes(certificate.public_bytes(Encoding.PEM))
    return path


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Any, days: int = 1, since: int = -10
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + since * DAY)
        .not_valid_after(now + days * DAY)
    )


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)
