"""Seeded bytes for fuzzing: sound transactions, these mutated in many ways, plain noise, and the table of bad input."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any, Final

from fraud_testing.bad_input import CASES

_VALUES: Final[tuple[Any, ...]] = (
    None, True, 0, -1, 2**63, -(2**70), 10**25, 0.1, 1e308, -0.0, "", " ", "x" * 300, "\u0000", "\u202e", "\ud83d\ude00", [], {}, [[]],
    {"a": {"a": {}}}, "NaN", "12.50", "0x10", 10.005, 1_790_000_000, 4_070_908_800_000,
)  # fmt: skip


def _sound(rng: random.Random, event_id: str, now: int) -> dict[str, Any]:
    return {
        "id": event_id,
        "time": now - rng.randrange(0, 3_600_000),
        "amount": rng.randrange(0, 100_000) / 100,
        "card": f"card-{rng.randrange(500)}",
        "merchant": f"shop-{rng.randrange(50)}",
        "category": rng.choice(("travel", "food", None)),
    }


def _torn(rng: random.Random, raw: bytes) -> bytes:
    """A few random edits of the bytes."""
    data = bytearray(raw)
    for _ in range(rng.randrange(1, 5)):
        at, kind = rng.randrange(len(data) + 1), rng.randrange(6)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[at : at + rng.randrange(1, 20)]
        elif kind == 2:
            data[at:at] = rng.randbytes(rng.randrange(1, 8))
        elif kind == 3:
            data[at:at] = data[rng.randrange(len(data) + 1) :][:30]
        elif kind == 4:
            data[at:at] = rng.choice(
                (b'"', b"{", b"}", b"[", b",", b":", b"\\", b"\\ud800", b"null", b"\xff", b"\x00")
            )
        else:
            del data[at:]
        if not data:
            break
    return bytes(data)


def _bent(rng: random.Random, whole: dict[str, Any]) -> bytes:
    """Sound JSON with wrong, missing or additional values."""
    for _ in range(rng.randrange(1, 3)):
        name = rng.choice((*whole, "decision", "extra", "ID", "amount "))
        if rng.random() < 0.2:
            whole.pop(name, None)
        else:
            whole[name] = rng.choice(_VALUES)
    return json.dumps(whole, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")


def cases(count: int, seed: int, prefix: str, now: int) -> Iterator[bytes]:
    """``count`` bodies; the sound ones among them have ids of their own."""
    rng = random.Random(seed)
    for i in range(count):
        event_id, kind = f"{prefix}{i}", rng.random()
        whole = _sound(rng, event_id, now)
        if kind < 0.1:
            yield json.dumps(whole).encode()
        elif kind < 0.5:
            yield _torn(rng, json.dumps(whole).encode())
        elif kind < 0.85:
            yield _bent(rng, whole)
        elif kind < 0.95:
            yield rng.randbytes(rng.randrange(0, 300))
        else:
            case = rng.choice(CASES)
            raw = case.body(event_id, now)
            # The megabytes are in the table's own test; here they would only take time.
            yield raw if len(raw) < 100_000 else raw[:70_000]
