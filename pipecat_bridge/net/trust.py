"""The certificate authorities that are accepted for TLS to runners and bots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from OpenSSL import crypto
from twisted.internet.ssl import Certificate, trustRootFromCertificates

_END = b"-----END CERTIFICATE-----"


def trust_root(ca_file: str) -> Any:
    """The authorities in a PEM file, as Twisted takes them; None for "", the system's authorities.

    Raises ValueError if the file cannot be read or has no certificate.
    """
    if not ca_file:
        return None
    try:
        text = Path(ca_file).read_bytes()
    except OSError as error:
        raise ValueError(f"{error.strerror}, expected a PEM file") from None
    blocks = [block + _END for block in text.split(_END)[:-1]]
    if not blocks:
        raise ValueError("no certificate is in it, expected PEM")
    try:
        return trustRootFromCertificates([Certificate.loadPEM(block) for block in blocks])
    except crypto.Error:
        raise ValueError("a certificate in it cannot be read, expected PEM") from None
