"""One row over HTTP: the short way against KServe's stock server of the same model, in the same run, turn by turn."""

from __future__ import annotations

import http.client
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import orjson

from fraud_testing import packages, serving

WIDTH = 25
STOCK = """
import logging, sys, kserve
from pathlib import Path
from prometheus_client import REGISTRY
from fraud_serving.instruments import Instruments
from fraud_serving.predictor import FraudModel
for name in ("kserve", "kserve.trace", "uvicorn.access", "uvicorn.error"):
    logging.getLogger(name).setLevel(logging.WARNING)
model = FraudModel("m", Path(sys.argv[1]), Instruments(REGISTRY))
model.load()
kserve.ModelServer(http_port=int(sys.argv[2]), workers=1, enable_grpc=False, enable_latency_logging=False).start([model])
"""


def cpu_seconds(process: serving.Process) -> float:
    assert process.process is not None
    fields = Path(f"/proc/{process.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def turn(process: serving.Process, seconds: float) -> tuple[float, float, float]:
    """(requests a second, median ms, server's CPU us a request) of one caller in a closed loop."""
    tensor = {
        "name": "features",
        "shape": [1, WIDTH],
        "datatype": "FP32",
        "data": [float(i) for i in range(WIDTH)],
    }
    body, took = orjson.dumps({"inputs": [tensor]}), []
    connection = http.client.HTTPConnection("127.0.0.1", process.port)
    before, end = cpu_seconds(process), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        connection.request("POST", "/v2/models/m/infer", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        data = answer.read()
        assert answer.status == 200, data[:300]
        took.append(time.perf_counter() - start)
    used = cpu_seconds(process) - before
    return len(took) / seconds, 1000 * statistics.median(took), 1e6 * used / len(took)


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="fraud-predictor-"))
    packages.make(folder / "package", [f"f{i}" for i in range(WIDTH)], "a" * 64, rounds=300)
    (folder / "stock_server.py").write_text(STOCK)
    path = {"PYTHONPATH": f"{folder}:{os.environ['PYTHONPATH']}"}
    stock = serving.Process("stock_server", folder, path, ready_path="/v2/models/m/ready")
    stock.arguments = [str(folder / "package"), str(stock.port)]
    found: dict[str, list[tuple[float, float, float]]] = {"short": [], "stock": []}
    with serving.predictor(folder / "package", "m", folder) as short:
        stock.start()
        try:
            for _ in range(4):
                for name, process in (("short", short), ("stock", stock)):
                    found[name].append(turn(process, 2.0))
        finally:
            stock.stop()
    for name, turns in found.items():
        rates, medians, cpu = (statistics.median(column) for column in zip(*turns, strict=True))
        told = {
            "server": name,
            "requests_per_s": round(rates),
            "p50_ms": round(medians, 3),
            "cpu_us": round(cpu),
        }
        sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
