"""The queue of a detector's passes goes on, whatever a look at it meets."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from fraud_operator import passes
from fraud_operator.meters import OperatorMeters


@dataclass
class Settled:
    ready: bool | None = True
    changed: bool = False
    settled: bool = True


def test_a_glance_that_breaks_costs_no_later_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unforeseen error while a detector is glanced at is logged, and its next pass comes all the same."""
    monkeypatch.setattr(passes, "GLANCE", 0.01)
    monkeypatch.setattr(passes, "RESYNC", 0.1)
    looks: list[str] = []

    def glance(namespace: str, name: str) -> bool:
        raise KeyError("data")

    async def main() -> None:
        again = asyncio.Event()
        loop = asyncio.get_running_loop()

        def run(namespace: str, name: str) -> Any:
            looks.append(name)
            if len(looks) == 2:
                loop.call_soon_threadsafe(again.set)
            return Settled()

        queue = passes.Passes(run, OperatorMeters(), glance)
        monkeypatch.setattr(queue.meters, "observed", lambda *_: None)
        queue.ask("tests", "cards")
        async with asyncio.timeout(20):
            await again.wait()
        await queue.close()

    asyncio.run(main())
