"""How an address of Redis is read, by every client alike."""

from __future__ import annotations

import pytest

from fraud_process.redis_address import RedisLogin, parse


def test_a_server_is_named_by_itself() -> None:
    """With the usual port and database where the address leaves them out; a login may be a password alone."""
    address = parse("rediss://us%40r:p%2Fw@cache.test:6380/2?health_check_interval=5")
    assert (address.hosts, address.database, address.tls, address.master) == (
        (("cache.test", 6380),),
        2,
        True,
        "",
    )
    assert address.login.words == ("us@r", "p/w")
    bare = parse("redis://:secret@[::1]")
    assert (bare.hosts, bare.database, bare.tls) == ((("::1", 6379),), 0, False)
    assert bare.login.words == ("secret",)
    assert parse("redis://user@h").login.words == ()


def test_sentinels_name_the_server() -> None:
    """They have a login of their own, and the servers are on their hosts unless the address says where."""
    address = parse("redis+sentinel://u:p@a,b:26380/main/1?sentinel_username=s&sentinel_password=q%26r")
    assert address.hosts == (("a", 26379), ("b", 26380))
    assert (address.master, address.database, address.tls) == ("main", 1, False)
    assert address.login.words == ("u", "p") and address.sentinel_login == RedisLogin("s", "q&r")
    assert address.nodes == (("a", 6379), ("b", 6379))
    named = parse("rediss+sentinel://a/main?nodes=c,d:6380")
    assert (named.nodes, named.tls, named.login.words) == ((("c", 6379), ("d", 6380)), True, ())


@pytest.mark.parametrize(
    "text",
    [
        "", "secret", "http://h", "redis://", "redis:///0", "redis://u:secret@", "redis://u:secret@h:99999", "redis://secret@h:x",
        "redis://u:secret@a,b/0", "redis://u:secret@h/one", "redis://[secret", "redis+sentinel://u:secret@a,b",
        "redis+sentinel://u:secret@a,,b/main", "redis+sentinel://a/main?secret=1", "redis+sentinel://a/main?nodes=b:secret",
        "redis+sentinel://a/main/secret",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused_in_words_that_quote_nothing(text: str) -> None:
    """They say how to write one."""
    with pytest.raises(ValueError, match=r"redis|sentinel_") as refused:
        parse(text)
    assert "secret" not in str(refused.value)


def test_a_password_is_in_no_log() -> None:
    """Neither of the servers nor of the Sentinels."""
    address = parse("redis+sentinel://u:hidden@a/main?sentinel_password=hidden")
    assert "hidden" not in repr(address)
