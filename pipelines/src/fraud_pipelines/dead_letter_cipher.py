"""Encryption of what a dead letter holds: a refused record may be full of what the detector calls sensitive."""

from __future__ import annotations

import base64

from cryptography.fernet import Fernet, InvalidToken


class CipherError(ValueError):
    """Text that this key did not encrypt, or that was changed since."""


class DeadLetterCipher:
    """Encrypts and decrypts bytes under the detector's DEAD_LETTER_KEY (a Fernet key: 32 bytes in URL-safe base64)."""

    def __init__(self, key: str | bytes) -> None:
        try:
            self._fernet = Fernet(key)
        except ValueError as error:
            raise ValueError("DEAD_LETTER_KEY must be 32 random bytes in URL-safe base64") from error

    @staticmethod
    def new_key() -> str:
        return Fernet.generate_key().decode()

    def encrypt(self, payload: bytes) -> str:
        """What a dead letter's ``payload`` holds: base64 of a Fernet token, itself base64 of ciphertext and tag."""
        return base64.b64encode(self._fernet.encrypt(payload)).decode()

    def decrypt(self, sealed: str) -> bytes:
        try:
            return self._fernet.decrypt(base64.b64decode(sealed, validate=True))
        except (InvalidToken, ValueError) as error:
            raise CipherError("the payload was not sealed with this key, or was changed") from error
