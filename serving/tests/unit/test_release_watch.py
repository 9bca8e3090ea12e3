"""How a release reaches a process: mounted copy, watch, and what happens when either is broken."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from fraud_contracts.detector_policy import Policy
from fraud_contracts.release import Release
from fraud_serving import release_watch
from fraud_serving.release_watch import ReleaseWatch


def text(name: str) -> str:
    return Release(name=name, policy=Policy(), policy_revision=1).to_json()


def watch(path: Path) -> tuple[ReleaseWatch, list[str]]:
    used: list[str] = []
    return ReleaseWatch("ns", "cards-release", lambda release: used.append(release.name), path), used


def test_the_mounted_copy_is_taken_once_and_again_when_it_changes(tmp_path: Path) -> None:
    """The same text isn't a new release; a missing file is none."""
    path = tmp_path / "release.json"
    watching, used = watch(path)
    assert not watching.read_file()
    path.write_text(text("a"))
    assert watching.read_file()
    assert not watching.read_file()
    path.write_text(text("b"))
    assert watching.read_file()
    assert used == ["a", "b"]


@pytest.mark.parametrize("broken", ["", "{", "{}", '{"name": "x", "surprise": 1}'])
def test_a_broken_release_changes_nothing(tmp_path: Path, broken: str) -> None:
    """The last good one stays in use."""
    watching, used = watch(tmp_path / "none")
    assert watching.take(text("good"))
    assert not watching.take(broken)
    assert used == ["good"]


def test_the_watch_brings_changes_and_an_old_mounted_copy_does_not_undo_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """List, then events; while the watch is up the kubelet's older copy is not read."""
    account = tmp_path / "account"
    account.mkdir()
    (account / "token").write_text("secret")
    monkeypatch.setattr(release_watch, "ACCOUNT", account)
    asked: list[dict[str, str]] = []

    def item(name: str) -> dict[str, Any]:
        return {"data": {"release.json": text(name)}}

    async def serve(request: web.Request) -> web.StreamResponse:
        assert request.headers["Authorization"] == "Bearer secret"
        asked.append(dict(request.query))
        if "watch" not in request.query:
            return web.json_response({"metadata": {"resourceVersion": "7"}, "items": [item("listed")]})
        answer = web.StreamResponse()
        await answer.prepare(request)
        for event in (
            {"type": "MODIFIED", "object": item("watched")},
            {"type": "DELETED", "object": item("gone")},
            {"type": "ERROR", "object": {"reason": "Expired"}},
        ):
            await answer.write(json.dumps(event).encode() + b"\n")
        return answer

    async def run() -> list[str]:
        app = web.Application()
        app.router.add_get("/api/v1/namespaces/ns/configmaps", serve)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        watching, used = watch(tmp_path / "none")
        with pytest.raises(ValueError, match="Expired"):
            await watching._watch(
                f"http://127.0.0.1:{port}/api/v1/namespaces/ns/configmaps", ssl.create_default_context()
            )
        await runner.cleanup()
        return used

    assert asyncio.run(run()) == ["listed", "watched"]
    assert asked[0]["fieldSelector"] == "metadata.name=cards-release"
    assert asked[1]["resourceVersion"] == "7"


def test_a_mounted_copy_that_is_no_text_is_refused_once_and_the_next_is_taken(tmp_path: Path) -> None:
    """Bytes that aren't UTF-8 end no loop: counted once, the last good release stays, a mended copy is taken."""
    path, used, refused = tmp_path / "release.json", [], []
    watching = ReleaseWatch(
        "ns", "p", lambda release: used.append(release.name), path, lambda: refused.append(1)
    )
    path.write_text(text("a"))
    assert watching.read_file()
    path.write_bytes(b"\xff\xfe{")
    assert [watching.read_file(), watching.read_file(), len(refused)] == [False, False, 1]
    path.write_text(text("b"))
    assert watching.read_file()
    assert used == ["a", "b"]


def test_a_release_that_cannot_be_used_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever using it raises: the watch goes on, and the log quotes nothing of a broken document."""

    def use(release: Release) -> None:
        if release.name == "bad":
            raise KeyError("secret")

    watching = ReleaseWatch("ns", "p", use, tmp_path / "none")
    assert watching.take(text("good"))
    assert not watching.take(text("bad"))
    assert not watching.take('{"name": ["secret"], "policy": {}}')
    assert watching.take(text("better"))
    assert len([r for r in caplog.records if r.levelname == "ERROR"]) == 2
    assert "secret" not in str([r.__dict__ for r in caplog.records])


@pytest.mark.parametrize("answer", [{}, {"items": None, "metadata": {}}, [], {"items": [{"data": "x"}]}])
def test_an_answer_of_another_shape_does_not_end_the_watch(
    answer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What isn't an API server's list is reported, and the list is asked for again."""
    (tmp_path / "token").write_text("secret")
    (tmp_path / "ca.crt").write_text("")
    monkeypatch.setattr(release_watch, "ACCOUNT", tmp_path)
    monkeypatch.setattr(release_watch, "_BACKOFF", (0.01, 0.02))
    monkeypatch.setattr(ssl, "create_default_context", lambda **_: False)
    asked = asyncio.Event()
    count = 0

    async def serve(_: web.Request) -> web.StreamResponse:
        nonlocal count
        count += 1
        if count == 3:
            asked.set()
        return web.json_response(answer)

    async def run() -> None:
        app = web.Application()
        app.router.add_get("/api/v1/namespaces/ns/configmaps", serve)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        watching, _ = watch(tmp_path / "none")
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/api/v1/namespaces/ns/configmaps"
        inner = watching._watch
        monkeypatch.setattr(watching, "_watch", lambda _, tls: inner(url, tls))
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        following = asyncio.create_task(watching._follow())
        await asyncio.wait_for(asked.wait(), 10)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await runner.cleanup()

    asyncio.run(run())
