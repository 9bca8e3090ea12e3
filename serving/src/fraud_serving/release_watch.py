"""Which release is in use: the mounted copy at start, then a watch on its ConfigMap; the last good one stays for ever.

The kubelet refreshes a mounted ConfigMap about once a minute; the watch brings a change in milliseconds, which is what a
rollback needs. While the watch is broken, a mounted copy that changes is taken, since it then is the fresher source. A
release that can't be read is reported and changes nothing: the data path lives without the API server and the operator.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson
from pydantic import ValidationError

from fraud_contracts.background import watched
from fraud_contracts.config import RELEASE_ENV, RELEASE_KEY, RELEASE_PATH
from fraud_contracts.release import Release, parse_release

ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
POLL_SECONDS: Final = 1.0
WATCH_SECONDS: Final = 300
_BACKOFF: Final = (0.2, 10.0)
_log = logging.getLogger(__name__)


def release_path() -> Path:
    return Path(os.environ.get(RELEASE_ENV, RELEASE_PATH))


class ReleaseWatch:
    """Calls ``use`` with each new release, on the event loop; ``use`` may raise to refuse one.

    ``refused`` is called for each document that is none or can't be used.
    """

    def __init__(
        self,
        namespace: str,
        pointer: str,
        use: Callable[[Release], None],
        path: Path | None = None,
        refused: Callable[[], None] = lambda: None,
    ) -> None:
        self._namespace, self._pointer, self._use, self._refused = namespace, pointer, use, refused
        self._path = path or release_path()
        self._text: str | None = None
        self._file: bytes | None = None
        self._connected = False
        self._tasks: list[asyncio.Task[None]] = []

    def take(self, text: str) -> bool:
        """Uses a release document unless it is the one in use; -> whether it was taken."""
        if text == self._text:
            return False
        try:
            release = parse_release(text)
            self._use(release)
        except Exception as error:  # whatever it holds, the last good one stays
            self._refuse(error)
            return False
        self._text = text
        _log.info("release read", extra={"data": {"release": release.name}})
        return True

    def read_file(self) -> bool:
        """Takes the mounted copy if it changed since it was last read."""
        try:
            file = self._path.read_bytes()
        except OSError:
            return False  # not mounted yet; asked again
        if file == self._file:
            return False
        self._file = file
        try:
            return self.take(file.decode())
        except UnicodeDecodeError as error:
            self._refuse(error)
            return False

    def start(self) -> None:
        self.read_file()
        self._tasks.append(watched(asyncio.create_task(self._poll(), name="release-file")))
        if "KUBERNETES_SERVICE_HOST" in os.environ and (ACCOUNT / "token").exists():
            self._tasks.append(watched(asyncio.create_task(self._follow(), name="release-watch")))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            if not self._connected:
                self.read_file()

    async def _follow(self) -> None:
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        host = f"[{host}]" if ":" in host else host
        url = f"https://{host}:{port}/api/v1/namespaces/{self._namespace}/configmaps"
        tls = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
        pause = _BACKOFF[0]
        while True:
            started = time.monotonic()
            try:
                await self._watch(url, tls)
            except Exception as error:  # away, or no answer of an API server: the watch begins anew
                text = f"{type(error).__name__}: {error}"[:300]
                _log.warning("watch of the release broke", extra={"data": {"error": text}})
            self._connected = False
            pause = _BACKOFF[0] if time.monotonic() - started > _BACKOFF[1] else min(pause * 2, _BACKOFF[1])
            await asyncio.sleep(pause)

    async def _watch(self, url: str, tls: ssl.SSLContext) -> None:
        """Reads the pointer, then follows it until the server ends the watch."""
        token = (ACCOUNT / "token").read_text().strip()  # it is renewed on disk, so read for each watch
        headers = {"Authorization": f"Bearer {token}"}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=WATCH_SECONDS + 30)
        chosen = {"fieldSelector": f"metadata.name={self._pointer}"}
        async with aiohttp.ClientSession(headers=headers, timeout=timeout, read_bufsize=2**21) as session:
            async with session.get(url, params=chosen, ssl=tls) as answer:
                answer.raise_for_status()
                listing = await answer.json()
            for item in listing["items"]:
                self._take_map(item)
            self._connected = True
            follow = {
                **chosen,
                "watch": "1",
                "timeoutSeconds": str(WATCH_SECONDS),
                "resourceVersion": listing["metadata"]["resourceVersion"],
            }
            async with session.get(url, params=follow, ssl=tls) as answer:
                answer.raise_for_status()
                async for line in answer.content:
                    event = orjson.loads(line)
                    if event["type"] == "ERROR":
                        raise ValueError(f"the API server ended the watch: {event['object'].get('reason')}")
                    if event["type"] in ("ADDED", "MODIFIED"):
                        self._take_map(event["object"])

    def _take_map(self, item: dict[str, Any]) -> None:
        text = (item.get("data") or {}).get(RELEASE_KEY)
        if text:
            self.take(text)

    def _refuse(self, error: Exception) -> None:
        if isinstance(error, ValidationError):
            first = error.errors(include_input=False, include_context=False, include_url=False)[0]
            problem = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        else:
            problem = (
                f"{type(error).__name__}: {error}" if type(error) is ValueError else type(error).__name__
            )
        _log.error("release refused, the last good one stays", extra={"data": {"problem": problem[:500]}})
        self._refused()
