"""A detector's three keys, which live in its Secret and nowhere else: how they are made, and when stored ones can be used."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping
from typing import Final

from fraud_contracts.config import SECRET_KEYS

TOKEN_KEY: Final = "TOKEN_KEY"  # noqa: S105 - the name of a key, not the key
MIN_TOKEN_KEY_BYTES: Final = 16


def new_keys() -> dict[str, str]:
    """Random values in the forms that their readers expect: hex, a Fernet key, a token for a header."""
    return {
        TOKEN_KEY: secrets.token_hex(32),
        "DEAD_LETTER_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "API_KEY": secrets.token_urlsafe(24),
    }


def decoded_keys(values: Mapping[str, str]) -> dict[str, str] | None:
    """A Secret's ``data`` in plain; None where one of the three is missing or the token key is no key."""
    try:
        keys = {name: base64.b64decode(values[name]).decode() for name in SECRET_KEYS}
        return keys if len(bytes.fromhex(keys[TOKEN_KEY])) >= MIN_TOKEN_KEY_BYTES else None
    except (KeyError, ValueError):
        return None
