"""Which certificates of the trial stores are made, kept and renewed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from fraud_operator.certificates import LEFT, LIFE, SETTLED, AuthorityError, lacking

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SERVERS = {"REDIS": ("r.ns.svc",), "POSTGRES": ("p.ns.svc",)}
KEYS = {"CA_CERT", "CA_KEY", "REDIS_TLS_CERT", "REDIS_TLS_KEY", "POSTGRES_TLS_CERT", "POSTGRES_TLS_KEY"}


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    return lacking({}, SERVERS, NOW)


def certificate(secret: dict[str, str], key: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(secret[key].encode())


def test_each_server_has_a_certificate_of_one_authority(made: dict[str, str]) -> None:
    """It names the server's hosts and loopback, and the authority signed it."""
    assert made.keys() == KEYS
    authority = certificate(made, "CA_CERT")
    for server, (host,) in SERVERS.items():
        own = certificate(made, f"{server}_TLS_CERT")
        own.verify_directly_issued_by(authority)
        names = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == [host, "localhost"]


def test_what_is_good_stays(made: dict[str, str]) -> None:
    """A later start of the operator writes nothing, and nothing is made where no trial store is on."""
    assert lacking(made, SERVERS, NOW + LIFE - LEFT - timedelta(days=1)) == {}
    assert lacking({}, {}, NOW) == {}


def test_a_certificate_is_renewed_long_before_it_expires(made: dict[str, str]) -> None:
    """By the same authority, so whoever knows that one goes on."""
    later = NOW + LIFE - LEFT + timedelta(days=1)
    renewed = lacking(made, SERVERS, later)
    assert renewed.keys() == KEYS - {"CA_CERT", "CA_KEY"}
    own = certificate(renewed, "REDIS_TLS_CERT")
    own.verify_directly_issued_by(certificate(made, "CA_CERT"))
    assert own.not_valid_after_utc > later + LEFT


def test_another_name_or_a_broken_key_is_another_certificate(made: dict[str, str]) -> None:
    """Of that server alone."""
    moved = lacking(made, {**SERVERS, "REDIS": ("other.ns.svc",)}, NOW)
    assert moved.keys() == {"REDIS_TLS_CERT", "REDIS_TLS_KEY"}
    broken = lacking({**made, "POSTGRES_TLS_KEY": made["REDIS_TLS_KEY"]}, SERVERS, NOW)
    assert broken.keys() == {"POSTGRES_TLS_CERT", "POSTGRES_TLS_KEY"}


def test_an_expired_authority_vouches_for_nobody(made: dict[str, str]) -> None:
    """Everything is made anew, and nobody is told of it any more."""
    anew = lacking(made, SERVERS, NOW + timedelta(days=9000))
    assert anew.keys() == KEYS
    assert len(x509.load_pem_x509_certificates(anew["CA_CERT"].encode())) == 1


def test_another_authority_comes_beside_the_former(made: dict[str, str]) -> None:
    """Clients are told of both first; then servers change over; then the former is let go."""
    secret = {**made, "CA_KEY": "taken out"}
    first = lacking(secret, SERVERS, NOW)
    assert first.keys() == {"CA_CERT", "CA_KEY"}
    known = x509.load_pem_x509_certificates(first["CA_CERT"].encode())
    assert known[1] == certificate(made, "CA_CERT")
    secret |= first
    assert lacking(secret, SERVERS, NOW + SETTLED - timedelta(seconds=1)) == {}
    second = lacking(secret, SERVERS, NOW + SETTLED)
    assert second.keys() == KEYS - {"CA_CERT", "CA_KEY"}
    certificate(second, "REDIS_TLS_CERT").verify_directly_issued_by(known[0])
    secret |= second
    assert lacking(secret, SERVERS, NOW + 2 * SETTLED - timedelta(seconds=1)) == {}
    third = lacking(secret, SERVERS, NOW + 2 * SETTLED)
    assert third.keys() == {"CA_CERT"}
    assert x509.load_pem_x509_certificates(third["CA_CERT"].encode()) == known[:1]
    assert lacking(secret | third, SERVERS, NOW + 2 * SETTLED) == {}


def test_an_operator_that_runs_leaves_the_authority_alone(made: dict[str, str]) -> None:
    """It renews by the one that it tells detectors of, and says so where there is another."""
    known = made["CA_CERT"]
    later = NOW + LIFE - LEFT + timedelta(days=1)
    assert lacking(made, SERVERS, later, known).keys() == KEYS - {"CA_CERT", "CA_KEY"}
    for damaged in (
        {**made, "CA_KEY": "taken out"},
        {**made, **lacking({**made, "CA_KEY": ""}, SERVERS, NOW)},
    ):
        with pytest.raises(AuthorityError, match="start it again"):
            lacking(damaged, SERVERS, later, known)
