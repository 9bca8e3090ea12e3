"""Makes what a Secret of the chart still lacks, passwords and the trial servers' certificates:
``python -m fraud_operator.passwords [--server NAME=HOST,...]... NAMESPACE SECRET KEY...``.

The chart's templates make none: what they render has to be the same each time, or every sync of Argo CD would lock the stores
out. The operator's Pod runs this before the operator starts, and the stores' Pods wait for their key, as Kubernetes does. A password
that is there is never changed, whoever made it; a certificate is renewed, here and by the running operator, long before it expires.
"""

from __future__ import annotations

import argparse
import secrets
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

from fraud_contracts.child_kinds import SECRET
from fraud_contracts.errors import FraudError
from fraud_operator import certificates
from fraud_operator.desired.documents import decoded, secret_data
from fraud_operator.kube import ApiError, ConflictError, Kube, load_client

# Others that fill in the same Secret at the same time: each of their writes costs us one try.
TRIES: Final = 10
Servers = Mapping[str, tuple[str, ...]]


class SecretMissingError(FraudError):
    """The Secret itself isn't there: the chart makes it, without passwords."""

    def __init__(self, namespace: str, name: str) -> None:
        super().__init__(f"there is no Secret {name} in {namespace}: helm upgrade makes it again")
        self.namespace, self.name = namespace, name


def new_password() -> str:
    """128 random bits in hex: whole within a URL, and never taken for an option on a command line."""
    return secrets.token_hex(16)


def fill_in(
    kube: Kube,
    namespace: str,
    name: str,
    keys: Iterable[str],
    make: Callable[[], str] = new_password,
    servers: Servers | None = None,
    known_as: str | None = None,
) -> list[str]:
    """The keys that were written. SecretMissingError where the Secret isn't there, ApiError where it can't be written.

    ``servers`` are the host names of each server that has a certificate, by its name; ``known_as`` is as ``certificates.lacking`` has it.
    """
    wanted = list(keys)
    for _ in range(TRIES):
        secret = kube.get(SECRET, namespace, name)
        if secret is None:
            raise SecretMissingError(namespace, name)
        present = decoded(secret.get("data") or {})
        made = {key: make() for key in wanted if not present.get(key)}
        made |= certificates.lacking(present, servers or {}, datetime.now(UTC), known_as)
        if not made:
            return []
        body = {
            # Refused where somebody wrote meanwhile, maybe the password that is being made here.
            "metadata": {"resourceVersion": secret["metadata"]["resourceVersion"]},
            "data": secret_data(made),
        }
        try:
            kube.merge(SECRET, namespace, name, body)
        except ConflictError:
            continue
        return list(made)
    raise ApiError(409, f"Secret {name} in {namespace} is being written by others all the time")


def _server(text: str) -> tuple[str, tuple[str, ...]]:
    name, _, hosts = text.partition("=")
    if not name or not hosts:
        raise argparse.ArgumentTypeError(f"{text!r}: write NAME=HOST,HOST")
    return name, tuple(hosts.split(","))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="fraud_operator.passwords", description=__doc__)
    parser.add_argument("--server", action="append", default=[], type=_server, metavar="NAME=HOST,...")
    parser.add_argument("namespace")
    parser.add_argument("secret")
    parser.add_argument("keys", nargs="+", metavar="key")
    options = parser.parse_args(arguments)
    try:
        kube, servers = Kube(load_client()), dict(options.server)
        made = fill_in(kube, options.namespace, options.secret, options.keys, servers=servers)
    except FraudError as error:
        sys.stdout.write(f"nothing made: {error}\n")
        return 1
    sys.stdout.write(f"Secret {options.secret}: {', '.join(made) or 'nothing'} made\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
