"""One row over HTTP: our predictor against KServe's stock server of the same model, turn by turn.

python -m fraud_bench.predictor
"""

from __future__ import annotations

import os
import socket
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import orjson

from fraud_bench import measure
from fraud_contracts.model_package import NATIVE
from fraud_testing import packages, serving

WIDTH = 25
TURNS = 5
SECONDS = float(os.environ.get("BENCH_SECONDS", 20)) / 10


def request() -> bytes:
    tensor = {
        "name": "features",
        "shape": [1, WIDTH],
        "datatype": "FP32",
        "data": [float(i) for i in range(WIDTH)],
    }
    body = orjson.dumps({"inputs": [tensor]})
    head = "POST /v2/models/m/infer HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def turn(process: serving.Process) -> tuple[float, float, float]:
    """(requests a second, median ms, server's CPU us a request) of one caller in a closed loop, on a plain socket."""
    assert process.process is not None
    sent, took = request(), []
    with socket.create_connection(("127.0.0.1", process.port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        before, end = measure.cpu_seconds(process.process.pid), time.perf_counter() + SECONDS
        while time.perf_counter() < end:
            start = time.perf_counter()
            connection.sendall(sent)
            answer = connection.recv(65536)
            while not whole(answer):
                answer += connection.recv(65536)
            if not answer.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"{process.module}: {answer[:300]!r}")
            took.append(time.perf_counter() - start)
        used = measure.cpu_seconds(process.process.pid) - before
    return len(took) / SECONDS, 1000 * statistics.median(took), 1e6 * used / len(took)


def whole(answer: bytes) -> bool:
    head, separator, body = answer.partition(b"\r\n\r\n")
    if not separator:
        return False
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return len(body) >= int(length.split(b":")[1])


def main() -> None:
    measure.begin()
    with tempfile.TemporaryDirectory(prefix="fraud-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        packages.make(folder / "package", [f"f{i}" for i in range(WIDTH)], "a" * 64, rounds=300)
        stock = serving.Process("fraud_bench.stock_server", folder, {}, ready_path="/v2/models/m/ready")
        stock.arguments = [str(folder / "package" / NATIVE), str(stock.port)]
        turns: dict[str, list[tuple[float, float, float]]] = {"predictor": [], "stock": []}
        ours = stack.enter_context(serving.predictor(folder / "package", "m", folder))
        stack.callback(stock.stop)
        stock.start()
        measure.note("predictor against the stock server")
        for _ in range(TURNS):
            for server, process in (("predictor", ours), ("stock", stock)):
                turns[server].append(turn(process))
        for server, measured in turns.items():
            rates, medians, cpu = (statistics.median(column) for column in zip(*measured, strict=True))
            measure.report(server, per_s=round(rates), p50_ms=round(medians, 3), cpu_us=round(cpu))


if __name__ == "__main__":
    main()
