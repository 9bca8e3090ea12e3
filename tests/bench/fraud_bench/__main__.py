"""Runs the benches, each in its component's environment, and prints one table: ``make bench``, ``make bench ONLY=predictor``.

Standard library only. Figures are kept in build/bench.json, so one bench can be run again without the others; WRITE=1
puts the table into docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from fraud_bench import table

ROOT = Path(__file__).parents[3]
CACHE = Path(os.environ.get("FRAUD_CACHE") or Path.home() / ".cache" / "fraud-platform")
KEPT = ROOT / "build" / "bench.json"
PAGE = ROOT / "docs" / "performance.md"
FROM, TO = "<!-- figures: written by make bench WRITE=1 -->\n", "<!-- end of figures -->\n"
# Bench: environment and the folders whose src it imports.
BENCHES = {
    "predictor": ("serving", "contracts pipelines serving"),
    "replay": ("serving", "contracts pipelines"),
    "training": ("ray", "contracts pipelines ray"),
    "live": ("serving", "contracts pipelines serving"),
    "locks": ("serving", "contracts pipelines serving"),
    "stream": ("serving", "contracts pipelines serving"),
    "reconcile": ("operator", "contracts operator"),
}


def run(bench: str) -> dict[str, Any]:
    """The figures of one bench by name; SystemExit with its last words where it failed."""
    environment, folders = BENCHES[bench]
    python = CACHE / "envs" / environment / "bin" / "python"
    if not python.exists():
        sys.exit(f"no environment {environment}: make env-{environment}")
    path = [str(ROOT / "tests" / "support"), str(ROOT / "tests" / "bench")]
    path += [str(ROOT / folder / "src") for folder in folders.split()]
    environ = {**os.environ, "FRAUD_CACHE": str(CACHE), "PYTHONPATH": ":".join(path), "PYTHONSAFEPATH": "1"}
    # Programs of the environment are found by name, as gunicorn is by its workers.
    environ["PATH"] = f"{python.parent}:{environ['PATH']}"
    say(f"{bench} ...")
    start = time.monotonic()
    log = ROOT / "build" / f"bench-{bench}.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [str(python), "-m", f"fraud_bench.{bench}"],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        assert process.stdout is not None
        figures: dict[str, Any] = {}
        for line in process.stdout:
            if line.startswith('{"figure"'):
                figure = json.loads(line)
                figures[figure.pop("figure")] = figure
    if process.wait():
        tail = log.read_text()[-3000:]
        sys.exit(f"{tail}\n{bench} failed with {process.returncode}; its output is in {log}")
    say(f"{bench}: {time.monotonic() - start:.0f} s")
    return figures


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    cpu = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
    memory = int(Path("/proc/meminfo").read_text().split("\n", 1)[0].split()[1])
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**20),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 1),
        "at": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", default="", help=f"one or more of {', '.join(BENCHES)}")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    options = parser.parse_args()
    chosen = options.only.replace(",", " ").split() or list(BENCHES)
    unknown = [name for name in chosen if name not in BENCHES]
    if unknown:
        parser.error(f"there is no bench {unknown[0]}; choose from {', '.join(BENCHES)}")
    KEPT.parent.mkdir(exist_ok=True)
    kept: dict[str, Any] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    for bench in chosen:
        where = machine()
        kept[bench] = {"machine": where, "figures": run(bench)}
        KEPT.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    text = table.markdown(kept)
    sys.stdout.write(text)
    if options.write:
        page = PAGE.read_text()
        before, _, rest = page.partition(FROM)
        _, _, after = rest.partition(TO)
        PAGE.write_text(before + FROM + "\n" + text + "\n" + TO + after)
        say(f"written to {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
