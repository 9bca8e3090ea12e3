"""When a request arrived: uvicorn's protocol, which also says so in the request's scope, under ARRIVED.

While the event loop is busy bytes lie in the kernel, and nothing of the process sees them. Linux does: TCP_INFO has how long ago a connection's
last data came, to the tick, some milliseconds. So a request's age is known however long its process had no processor.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Scope's key; perf_counter seconds at which the request's last byte came. Absent until its body is whole.
ARRIVED: Final = "fraud.arrived"
# struct tcp_info, linux/tcp.h: tcpi_last_data_recv, milliseconds, an unsigned int.
_LAST_DATA: Final = slice(52, 56)


def seconds_in_kernel(connection: Any) -> float:
    """How long ago the last data came on a connection's socket; 0 where nobody knows."""
    if sys.platform != "linux":
        return 0.0
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_DATA.stop)
    except (OSError, AttributeError):  # it is closed, or it is none
        return 0.0
    return int.from_bytes(info[_LAST_DATA], sys.byteorder) / 1000


class ArrivalProtocol(HttpToolsProtocol):  # type: ignore[misc]  # the linter's environment has no uvicorn
    _connection: Any = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._connection = transport.get_extra_info("socket")
        super().connection_made(transport)

    def on_message_complete(self) -> None:
        self.scope[ARRIVED] = time.perf_counter() - seconds_in_kernel(self._connection)
        super().on_message_complete()
