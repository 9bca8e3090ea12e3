"""Where a store is and how one logs in there, read anew for each connection, so that a changed login needs no restart.

A Pod has the addresses as mounted files, which the kubelet renews; whoever runs a process by hand gives environment variables.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from fraud_contracts.config import STORES_ENV, STORES_PATH, ca_cert
from fraud_contracts.errors import StoreError

# Of an error's text, what tells why; the text itself quotes what was taken for the host, which may be a part of a password.
_SILENCES: Final = (
    (("certificate",), "its certificate can't be verified"),
    (("ssl",), "it doesn't speak TLS as the address asks"),
    (("no password",), "it asks for a password and the address has none"),
    # Of several servers the last word: a standby is there, and what was the primary isn't.
    (("read-only", "hot standby"), "no server there takes writes now"),
    (("timeout", "timed out"), "no server answered in time"),
    (("refused",), "nothing listens there"),
    (("resol", "not known"), "its host has no address"),
    (("no master",), "the Sentinels know no master of that name"),
)


def silence(error: Exception) -> str:
    """Why no server answered, in words that quote nothing of its address."""
    text = str(error).lower()
    return next(
        (why for words, why in _SILENCES if any(word in text for word in words)), "no server answered"
    )


def split_login(url: str) -> tuple[str, str, str]:
    """A URL without its login, with the user and the password, which are empty where it has none. It never raises."""
    try:
        parts = urlsplit(url)
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
    except ValueError:
        # Whoever uses the rest as an address is told so; of the login nothing may be left in it.
        scheme, mark, rest = url.partition("://")
        return f"{scheme}{mark}{rest.rpartition('@')[2]}", "", ""
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl(), user, password


@dataclass(frozen=True)
class StoreAddress:
    """``file`` holds the address; without a file it is ``fixed``."""

    fixed: str = ""
    file: Path | None = None

    def read(self) -> str:
        """The address as it is now; StoreError where its file can't be read."""
        if self.file is None:
            return self.fixed
        try:
            return self.file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise StoreError(self.file.name, f"its address can't be read: {error}") from error

    @property
    def authority(self) -> str | None:
        """The file with the certificate of whom the server's own is by; None where there is no such file."""
        file = None if self.file is None else self.file.with_name(ca_cert(self.file.name))
        return str(file) if file is not None and file.exists() else None


def store_address(
    key: str, environ: Mapping[str, str] | None = None, *, may_come: bool = False
) -> StoreAddress:
    """Of one of STORE_KEYS: the file of that name, else the variable.

    KeyError, naming it, where there is neither; with ``may_come`` it is the file, which is read once it is there.
    """
    env = os.environ if environ is None else environ
    file = Path(env.get(STORES_ENV, STORES_PATH)) / key
    if file.exists() or (may_come and key not in env):
        return StoreAddress(file=file)
    return StoreAddress(env[key])
