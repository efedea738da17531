"""TLS to runners and bots. Errors say why a certificate was not accepted."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any, Final
from weakref import ref

from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import (
    verify_certificate_hostname,
    verify_certificate_ip_address,
)
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import optionsForClientTLS
from twisted.python.failure import Failure
from zope.interface import implementer


class StrangerError(Exception):
    """A certificate is not accepted. The text says why."""


@implementer(IOpenSSLClientConnectionCreator)
class ClientTLS:
    """Twisted's TLS to `host`, with errors that say what is wrong with a certificate.

    Twisted checks only the host name in its callback. OpenSSL checks the rest, and its error only
    says that the check failed. Here one callback gets the results of both. `option`: the option
    with the certificates of `trust_root`, for the error text.
    """

    def __init__(self, host: str, trust_root: Any, option: str = "[runner] ca_file") -> None:
        self._host = host
        self._option = option
        self._options = optionsForClientTLS(host, trustRoot=trust_root)

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """A connection for one use."""
        connection: SSL.Connection = self._options.clientConnectionForTLS(tlsProtocol)
        protocol = ref(tlsProtocol)  # the protocol holds the connection with this callback

        def verify(_: object, certificate: crypto.X509, code: int, depth: int, good: int) -> bool:
            fault = "" if good else _fault(certificate, code, depth, self._option)
            if good and depth == 0 and not _is_for(self._host, certificate):
                fault = f"its certificate is not for {self._host}"
            told = protocol()
            if fault and told is not None:
                told.failVerification(Failure(StrangerError(fault)))
            return not fault

        connection.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, verify)
        return connection


def _is_for(host: str, certificate: crypto.X509) -> bool:
    try:
        if _is_address(host):
            verify_certificate_ip_address(certificate.to_cryptography(), host)
        else:
            verify_certificate_hostname(certificate.to_cryptography(), host)
    except (VerificationError, CertificateError):
        return False
    return True


def _is_address(host: str) -> bool:
    try:
        return bool(ip_address(host))
    except ValueError:
        return False


_UNKNOWN_AUTHORITY: Final = (
    "its certificate is from an authority that is not known here:"
    " expected that authority's certificate in {option}"
)

_FAULTS: Final = {
    2: _UNKNOWN_AUTHORITY,  # UNABLE_TO_GET_ISSUER_CERT
    7: _UNKNOWN_AUTHORITY,  # CERT_SIGNATURE_FAILURE: another authority with the same name
    9: "its certificate is not valid before {begin}",
    10: "its certificate has expired on {end}",
    18: "its certificate is self-signed: expected it in {option}",
    19: _UNKNOWN_AUTHORITY,  # SELF_SIGNED_CERT_IN_CHAIN: the authority's certificate came too
    20: _UNKNOWN_AUTHORITY,  # UNABLE_TO_GET_ISSUER_CERT_LOCALLY
    21: _UNKNOWN_AUTHORITY,  # UNABLE_TO_VERIFY_LEAF_SIGNATURE
}
"""Sentences for OpenSSL's error codes (X509_V_ERR_..)."""


def _fault(certificate: crypto.X509, code: int, depth: int, option: str) -> str:
    """The fault that OpenSSL found in one certificate of a chain. `depth` 0: the peer's own."""
    fault = _FAULTS.get(code, "its certificate was not accepted (OpenSSL's error {code})")
    if depth and code in (9, 10):
        fault = fault.replace("its certificate", "the certificate of its authority")
    begin, end = _day(certificate.get_notBefore()), _day(certificate.get_notAfter())
    return fault.format(code=code, begin=begin, end=end, option=option)


def _day(time: bytes | None) -> str:
    """The date of an ASN.1 time (YYYYMMDDhhmmssZ) as YYYY-MM-DD."""
    text = (time or b"").decode("ascii", "replace")
    return f"{text[:4]}-{text[4:6]}-{text[6:8]}"
