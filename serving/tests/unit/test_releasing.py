"""How a release reaches a process: mounted copy, watch, and what happens when either is broken."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from fraud_contracts.detector import Policy
from fraud_contracts.release import Release
from fraud_serving import releasing
from fraud_serving.releasing import ReleaseWatch


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
    monkeypatch.setattr(releasing, "ACCOUNT", account)
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
