"""A detector's keys, which live in its Secret and nowhere else: how they are made, and when stored ones can be used.

The release pointer has a digest of the token key, so that an operator that starts anew knows a key that isn't the detector's.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping
from typing import Final

from fraud_contracts import names
from fraud_contracts.clients import API_KEY
from fraud_contracts.config import SECRET_KEYS
from fraud_contracts.tokens import key_digest

TOKEN_KEY: Final = "TOKEN_KEY"  # noqa: S105 - the name of a key, not the key
MIN_TOKEN_KEY_BYTES: Final = 16
# In the release pointer's data.
TOKEN_KEY_DIGEST: Final = "token-key.digest"  # noqa: S105 - the name of an entry


def new_keys() -> dict[str, str]:
    """Random values in the forms that their readers expect: hex, a Fernet key."""
    return {
        TOKEN_KEY: secrets.token_hex(32),
        "DEAD_LETTER_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
    }


def decoded_keys(values: Mapping[str, str]) -> dict[str, str] | None:
    """A Secret's ``data`` in plain; None where one of the two is missing or the token key is no key.

    Of a detector from before there were clients its API key is among them.
    """
    old = [API_KEY] if API_KEY in values else []
    try:
        keys = {name: base64.b64decode(values[name]).decode() for name in (*SECRET_KEYS, *old)}
        return keys if len(bytes.fromhex(keys[TOKEN_KEY])) >= MIN_TOKEN_KEY_BYTES else None
    except (KeyError, ValueError):
        return None


def token_key_digest(keys: Mapping[str, str]) -> str:
    return key_digest(bytes.fromhex(keys[TOKEN_KEY]))


def fault(
    name: str, values: Mapping[str, str] | None, recorded: str | None, *, has_release: bool
) -> tuple[str, str] | None:
    """Why the Secret of the detector ``name`` gives no keys, as (reason, message); None where it does, or none are needed yet.

    ``values`` are its ``data``, None where it isn't there. ``recorded`` is the pointer's digest. Without a release
    there are no tokens yet.
    """
    secret, pointer = f"Secret {names.keys(name)}", f"ConfigMap {names.release_pointer(name)}"
    if values is None:
        message = (
            f"{secret} is gone, and with it the key of every stored token: put it back from a backup. To begin anew with other "
            f"tokens, which no stored profile or decision will match, delete {pointer} too"
        )
        return ("KeysMissing", message) if has_release else None
    keys = decoded_keys(values)
    if keys is None:
        what = "lacks one of the two keys, or TOKEN_KEY isn't 32 random bytes in hexadecimal"
        return "KeysBroken", f"{secret} {what}: put it in"
    if recorded is not None and token_key_digest(keys) != recorded:
        message = (
            f"{secret} has another TOKEN_KEY than the one that every stored token was made with: put that one back. What runs "
            "goes on with it, and what starts with another one ends at once. For a new key make a new detector"
        )
        return "TokenKeyChanged", message
    return None
