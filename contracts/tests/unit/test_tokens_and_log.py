"""Sensitive values: what stands for them, and that a trace in a log doesn't quote them."""

from __future__ import annotations

import json
import logging

from fraud_contracts import log
from fraud_contracts.tokens import is_token, key_digest, token

CARD = "4539578763621486"


def test_a_token_depends_on_key_field_and_value() -> None:
    """Equal values of one field under one key give equal tokens; another key, field or value gives another."""
    one = token(b"k" * 32, "card", CARD)
    assert is_token(one) and one == token(b"k" * 32, "card", CARD)
    assert (
        len(
            {
                one,
                token(b"x" * 32, "card", CARD),
                token(b"k" * 32, "pan", CARD),
                token(b"k" * 32, "card", "1"),
            }
        )
        == 4
    )
    assert not is_token(CARD) and not is_token(one + "0")


def test_a_key_has_a_name_that_is_no_token() -> None:
    """The same key has the same digest, another key another one, and no token of the key is its digest."""
    name = key_digest(b"k" * 32)
    assert name == key_digest(b"k" * 32) != key_digest(b"x" * 32)
    assert name not in token(b"k" * 32, "fraud token key", "")


def _logged(error: BaseException) -> str:
    record = logging.LogRecord(
        "x", logging.ERROR, __file__, 1, "broke", (), (type(error), error, error.__traceback__)
    )
    whole: dict[str, str] = json.loads(log._JsonLines().format(record))
    return whole["exception"]


def test_a_trace_quotes_nothing_that_was_sent() -> None:
    """The frames and the kind of an error are logged, a value that its message quotes isn't, nor that of its cause."""
    try:
        try:
            int(f"card {CARD}")
        except ValueError as error:
            raise KeyError(CARD) from error
    except KeyError as error:
        logged = _logged(error)
    assert CARD not in logged and "ValueError: invalid literal" in logged and "KeyError" in logged
    assert "test_a_trace_quotes_nothing" in logged
    assert "4539 5787" not in _logged(TypeError("got 4539 5787 6362 1486, smith"))
    assert "smith" not in _logged(ValueError("what is 'smith'?"))


def test_a_missing_variable_keeps_its_name() -> None:
    """A name in capitals is one of ours, and without it nobody could help."""
    assert "TOKEN_KEY" in _logged(KeyError("TOKEN_KEY"))
