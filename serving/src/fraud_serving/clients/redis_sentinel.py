"""Which server Redis' Sentinels hold for the master: all of them are asked at once, and what most say counts.

One Sentinel may be cut off from the others and name a master of former times, and one may be as dead as the master is; neither
makes the others' answer late or wrong.
"""

from __future__ import annotations

import asyncio
import collections
import ssl
from typing import Final

import hiredis

from fraud_contracts.errors import StoreError
from fraud_process.redis_address import Place, RedisAddress

SECONDS: Final = 1.0  # for all of them
_BYTES: Final = 4096


async def master_of(address: RedisAddress, tls: ssl.SSLContext | None) -> Place:
    """The server itself where the address names no Sentinels. StoreError where none of them names one."""
    if not address.master:
        return address.hosts[0]
    asked = [asyncio.create_task(_ask(sentinel, address, tls)) for sentinel in address.hosts]
    names: collections.Counter[Place] = collections.Counter()
    why = "no answer in time"
    try:
        for answer in asyncio.as_completed(asked, timeout=SECONDS):
            try:
                names[await answer] += 1
            except TimeoutError:
                break
            except (OSError, StoreError, ValueError, hiredis.HiredisError) as error:
                why = str(error)
            if names and names.most_common(1)[0][1] > len(asked) // 2:
                break
    finally:
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
    if not names:
        raise StoreError("redis", f"no Sentinel names a master: {why}")
    return names.most_common(1)[0][0]


async def _ask(sentinel: Place, address: RedisAddress, tls: ssl.SSLContext | None) -> Place:
    reader, writer = await asyncio.open_connection(*sentinel, ssl=tls)
    try:
        replies = hiredis.Reader()
        if address.sentinel_login.words:
            writer.write(hiredis.pack_command(("AUTH", *address.sentinel_login.words)))
            await _reply(reader, replies)
        writer.write(hiredis.pack_command(("SENTINEL", "get-master-addr-by-name", address.master)))
        reply = await _reply(reader, replies)
    finally:
        writer.close()
    if not isinstance(reply, list) or len(reply) != 2:
        raise StoreError("redis", "a Sentinel knows no master of this name")
    return reply[0].decode(), int(reply[1])


async def _reply(reader: asyncio.StreamReader, replies: hiredis.Reader) -> object:
    while (reply := replies.gets()) is False:
        data = await reader.read(_BYTES)
        if not data:
            raise ConnectionResetError("a Sentinel closed the connection")
        replies.feed(data)
    if isinstance(reply, hiredis.ReplyError):
        raise StoreError("redis", f"a Sentinel says {reply}")
    return reply
