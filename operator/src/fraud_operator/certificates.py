"""Certificates of the trial stores: an authority of the release, and by it one for each server, renewed long before it expires.

Keys and certificates are in the release's Secret. Servers read them from their files again when these change; clients know the
authority, so a renewed certificate is noticed by nobody. So is another authority: until all may know it, its predecessor's
certificates stay, and clients are told of both. Pure but for randomness: the time comes in.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fraud_contracts.config import CA_CERT
from fraud_contracts.errors import FraudError

CA_KEY: Final = "CA_KEY"
AUTHORITY_LIFE: Final = timedelta(days=7300)
LIFE: Final = timedelta(days=365)
# A server's certificate is renewed when so little of its life is left: an operator that is away for months does no harm.
LEFT: Final = timedelta(days=120)
# Whoever is to know of a new authority, or of a certificate by it, does after so long; Pods are told within minutes.
SETTLED: Final = timedelta(hours=1)
# Clocks of clients may be behind.
_EARLIER: Final = timedelta(hours=1)
_LOOPBACK: Final = ipaddress.ip_address("127.0.0.1")


class AuthorityError(FraudError):
    """The Secret's authority isn't the one that this operator tells its detectors of, so no server may have a certificate by it."""

    def __init__(self) -> None:
        super().__init__(f"{CA_CERT} and {CA_KEY} are others than at the operator's start: start it again")


def lacking(
    present: Mapping[str, str],
    servers: Mapping[str, tuple[str, ...]],
    now: datetime,
    known_as: str | None = None,
) -> dict[str, str]:
    """What to write into the Secret: its keys with certificates and keys as PEM; empty where all is well.

    ``servers`` are the host names of each server, by what the names of its keys begin with: REDIS has REDIS_TLS_CERT and
    REDIS_TLS_KEY. CA_CERT holds the authority's certificate, whose key is CA_KEY, and then those of its predecessors. Without a usable
    authority there is a new one; by it the servers get their next certificates once it has SETTLED, and when these have, no
    predecessor is left.

    ``known_as`` is CA_CERT as an operator that runs has it: it changes nothing of the authority, and AuthorityError tells that
    somebody did. None where one is about to start.
    """
    if not servers:
        return {}
    made: dict[str, str] = {}
    known = _certificates(present.get(CA_CERT, ""))
    authority = _read(present, CA_CERT, CA_KEY)
    usable = authority is not None and authority[0].not_valid_after_utc >= now
    if known_as is not None and (not usable or present.get(CA_CERT) != known_as):
        raise AuthorityError
    if authority is None or not usable:
        authority = _authority(now)
        known = [authority[0], *(former for former in known if former.not_valid_after_utc >= now)]
        made |= {**_write(authority, CA_CERT, CA_KEY), CA_CERT: _pem(known)}
    vouching = known[:1] if _settled(known[0], now) else known
    leaving = True
    for server, hosts in servers.items():
        names = (f"{server}_TLS_CERT", f"{server}_TLS_KEY")
        own = _read(present, *names)
        if own is None or not _good(own[0], vouching, hosts, now):
            own = _certified(authority, hosts, now)
            made |= _write(own, *names)
        leaving &= own[0].issuer == known[0].subject and _settled(own[0], now)
    if leaving and len(known) > 1 and known_as is None:
        made[CA_CERT] = _pem(known[:1])
    return made


_Pair = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def _certificates(text: str) -> list[x509.Certificate]:
    """Those that the text holds; an empty list where it can't be read."""
    try:
        return x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        return []


def _pem(certificates: list[x509.Certificate]) -> str:
    return "".join(one.public_bytes(serialization.Encoding.PEM).decode() for one in certificates)


def _settled(certificate: x509.Certificate, now: datetime) -> bool:
    return now - (certificate.not_valid_before_utc + _EARLIER) >= SETTLED


def _good(
    certificate: x509.Certificate, vouching: list[x509.Certificate], hosts: tuple[str, ...], now: datetime
) -> bool:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return (
        any(certificate.issuer == authority.subject for authority in vouching)
        and set(hosts) <= set(names.get_values_for_type(x509.DNSName))
        and certificate.not_valid_after_utc - now > LEFT
    )


def _read(present: Mapping[str, str], certificate: str, key: str) -> _Pair | None:
    """None where one of both isn't there, or isn't what it should be."""
    try:
        own = serialization.load_pem_private_key(present[key].encode(), None)
        read = x509.load_pem_x509_certificate(present[certificate].encode())
    except (KeyError, ValueError, TypeError):
        return None
    fits = isinstance(own, ec.EllipticCurvePrivateKey) and own.public_key() == read.public_key()
    return (read, own) if fits and isinstance(own, ec.EllipticCurvePrivateKey) else None


def _write(pair: _Pair, certificate: str, key: str) -> dict[str, str]:
    pem = serialization.Encoding.PEM
    text = pair[1].private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return {certificate: pair[0].public_bytes(pem).decode(), key: text.decode()}


def _builder(
    subject: x509.Name, issuer: x509.Name, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + life)
    )


def _authority(now: datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    # The serial tells it from a predecessor's: a certificate of that one is then renewed, too.
    common = f"fraud-platform stores {x509.random_serial_number():x}"[:64]
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    certificate = (
        _builder(name, name, now, AUTHORITY_LIFE)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate, key


def _certified(authority: _Pair, hosts: tuple[str, ...], now: datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])])
    # Who looks from within the Pod knows it as loopback.
    names = [x509.DNSName(host) for host in (*hosts, "localhost")]
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority[1].public_key())
    certificate = (
        _builder(subject, authority[0].subject, now, LIFE)
        .public_key(key.public_key())
        .add_extension(x509.SubjectAlternativeName([*names, x509.IPAddress(_LOOPBACK)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(issuer_key, critical=False)
        .sign(authority[1], hashes.SHA256())
    )
    return certificate, key
