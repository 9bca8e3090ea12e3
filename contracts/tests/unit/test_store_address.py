"""Where a process finds its stores."""

from __future__ import annotations

from pathlib import Path

import pytest

from fraud_contracts.config import POSTGRES_DSN, REDIS_URL, STORES_ENV
from fraud_contracts.errors import StoreError
from fraud_process.store_address import split_login, store_address


def test_a_mounted_address_is_read_anew_each_time(tmp_path: Path) -> None:
    """The file counts before the variable, and what it says counts from the next reading on, without the line break at its end."""
    environ = {STORES_ENV: str(tmp_path), REDIS_URL: "redis://variable"}
    (tmp_path / REDIS_URL).write_text("redis://one\n")
    address = store_address(REDIS_URL, environ)
    assert address.read() == "redis://one"
    (tmp_path / REDIS_URL).write_text("redis://two")
    assert address.read() == "redis://two"


def test_an_address_that_is_gone_is_an_error_of_the_store(tmp_path: Path) -> None:
    """A file that went says which store it was of; whoever wants the address tries again."""
    (tmp_path / POSTGRES_DSN).write_text("postgresql://x")
    address = store_address(POSTGRES_DSN, {STORES_ENV: str(tmp_path)})
    (tmp_path / POSTGRES_DSN).unlink()
    with pytest.raises(StoreError, match=POSTGRES_DSN):
        address.read()


def test_by_hand_a_variable_is_enough(tmp_path: Path) -> None:
    """Without a file the variable counts; without both the error names it."""
    environ = {STORES_ENV: str(tmp_path), REDIS_URL: "redis://variable"}
    assert store_address(REDIS_URL, environ).read() == "redis://variable"
    with pytest.raises(KeyError, match=POSTGRES_DSN):
        store_address(POSTGRES_DSN, environ)


def test_an_address_that_may_come_is_read_once_it_is_there(tmp_path: Path) -> None:
    """Until then the store doesn't answer; by hand the variable is enough for it, too."""
    environ = {STORES_ENV: str(tmp_path)}
    address = store_address(POSTGRES_DSN, environ, may_come=True)
    with pytest.raises(StoreError, match=POSTGRES_DSN):
        address.read()
    (tmp_path / POSTGRES_DSN).write_text("postgresql://x")
    assert address.read() == "postgresql://x"
    by_hand = store_address(REDIS_URL, {**environ, REDIS_URL: "redis://variable"}, may_come=True)
    assert by_hand.read() == "redis://variable"


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("http://h:5000/ml", ("http://h:5000/ml", "", "")),
        ("https://u:p%40ss@h/ml?q=1", ("https://h/ml?q=1", "u", "p@ss")),
        ("http://u:secret@[h", ("http://[h", "", "")),
        ("no url", ("no url", "", "")),
    ],
)
def test_a_url_is_parted_from_its_login(url: str, parts: tuple[str, str, str]) -> None:
    """What is left of the address may be shown; a text that is no URL keeps no login either."""
    assert split_login(url) == parts
