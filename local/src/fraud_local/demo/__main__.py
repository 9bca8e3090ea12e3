"""`make demo`: cluster, helm install, kubectl apply, history, training, live traffic on both doors, evidence, summary.

Everything that it does is a command that a person could type; it prints what became true, and when. With ``--once`` it
tears down and exits with the checks' result; else it stays up until Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import yaml

from fraud_contracts import names
from fraud_contracts.errors import FraudError
from fraud_local import paths, version
from fraud_local.demo import (
    arguments,
    bucket,
    chaos,
    checks,
    container_logs,
    data,
    demo_cluster,
    failure,
    leaks_cluster,
    lives,
    observe,
    places,
    pod,
    summary,
)
from fraud_local.demo.clock import Clock
from fraud_local.demo.kubectl import Kubectl, KubectlError
from fraud_local.shell import LocalError

ROOT = Path(__file__).resolve().parents[4]
BUILD = ROOT / "build" / "demo"
PLATFORM = "fraud-platform"
BAD_RECORDS = 100
# With faults the traffic lasts as long as they do; so many seconds of it are prepared, with so many malformed records.
CHAOS_SECONDS = 1200
CHAOS_BAD_RECORDS = 1000
CHAOS_BAD_WITHIN = 240
HISTORY_ROWS = 60_000
# Transactions that are sent once more at the end.
RESENT = 500
GATES = ("KafkaReady", "StreamingReady", "TrainingSucceeded", "FeaturesWarm", "ModelResolved", "ServingReady", "ReleasePropagated", "Ready", "ModelLive")  # fmt: skip
REMIND_SECONDS = 60.0
# Reasons of TrainingSucceeded that end a demo: its history is there, so none of them goes away by waiting.
NO_MODEL = ("TrainingFailed", "WaitingForHistory", "WaitingForLabels")


class DemoError(FraudError):
    """The demo can't go on; the message says what to do."""


def pipelines(module: str, *arguments: str) -> str:
    """Standard output of a module of pipelines, run in the environment that has its packages.

    ``fraud_local`` may not import pipelines: what the demo checks with must not be what it is built from.
    """
    path = ":".join(str(ROOT / folder / "src") for folder in ("contracts", "pipelines"))
    environ = {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
    command = [str(paths.env_python("serving")), "-m", module, *arguments]
    process = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
    if process.returncode:
        raise DemoError(f"{module} failed: {process.stderr[-800:]}")
    return process.stdout


class Demo:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.clock = Clock()
        self.resource: dict[str, Any] = yaml.safe_load(Path(options.cr).read_text())
        self.name = self.resource["metadata"]["name"]
        self.namespace = self.resource["metadata"].get("namespace", "default")
        self.shape = data.Shape.of(self.resource["spec"])
        self.evidence = BUILD / "evidence"
        self.kube: Kubectl
        self.bucket: bucket.Bucket
        self.cluster: demo_cluster.DemoCluster
        self.logs = container_logs.Follower(paths.STATE / "podlogs", BUILD / "podlogs")
        # Whether the traffic lasts as long as what happens meanwhile.
        self.eventful = options.chaos or options.lives
        self.seconds = (
            CHAOS_SECONDS if options.chaos else lives.SECONDS if options.lives else options.duration
        )

    @property
    def live_rows(self) -> int:
        return int(self.options.rate * self.seconds)

    @property
    def fd(self) -> list[str]:
        return ["-n", self.namespace, names.PLURAL + "." + names.GROUP, self.name]

    def run(self) -> bool:
        for path in filter(None, (self.options.history, self.options.cr)):
            data.check_outside(Path(path), BUILD)
        if "storage" in self.resource["spec"]:
            raise DemoError("spec.storage: the demo uploads history to the platform's storage; leave it out")
        shutil.rmtree(BUILD, ignore_errors=True)
        self.evidence.mkdir(parents=True)
        memory_before = observe.memory_used_mib()
        with self.clock.phase("cluster"):
            self.cluster = demo_cluster.up(self.options.images == "built")
            self.kube = Kubectl(self.cluster.kubeconfig, self.cluster.tools)
            self.clock.say(f"export KUBECONFIG={self.cluster.kubeconfig}")
        self.logs.start()
        self.refuse_another()
        with self.clock.phase("install"):
            self.install()
        with self.clock.phase("history"):
            self.history()
        with self.clock.phase("apply"):
            self.apply()
        with self.clock.phase("train and go live"):
            self.wait_live()
        with self.clock.phase("live traffic"):
            self.traffic()
        memory = {"used": observe.memory_used_mib() - memory_before, "peak_node": observe.node_memory_mib()}
        with self.clock.phase("summary"):
            return self.passes(memory)

    def refuse_another(self) -> None:
        """DemoError where an earlier demo's detector is left: its records have the same ids as this one's."""
        crd = self.kube.get("crd", f"{names.PLURAL}.{names.GROUP}")
        if crd and self.kube.get(*self.fd):
            raise DemoError(
                f"{self.namespace}/{self.name} is there already, from an earlier demo: run `make down` first"
            )

    def install(self) -> None:
        for name in (PLATFORM, self.namespace):
            namespace = json.dumps(demo_cluster.restricted_namespace(name))
            self.kube.kubectl("apply", "--server-side", "-f", "-", stdin=namespace)
        self.helm_install(version.CHART)
        self.clock.say(
            f"helm installed {PLATFORM}: operator, trial object store, MLflow, Redis, PostgreSQL and Prometheus are up"
        )
        self.bucket = bucket.Bucket(self.kube, PLATFORM)

    def helm_install(self, chart: Path, *more: str) -> None:
        """Also over another version of the chart."""
        values = [part for path in self.cluster.values for part in ("-f", str(path))]
        if self.options.lives:
            # A detector made again under Retain has another UID, so its brokers are rolled: in the Pod their data would go.
            values += ["--set", "kafka.persistence.enabled=true"]
        self.kube.helm(
            "upgrade", "--install", PLATFORM, str(chart), "--namespace", PLATFORM,
            "--wait", "--timeout", "5m", *values, *more, timeout=330,
        )  # fmt: skip

    def history(self) -> None:
        """Splits the file, shifts it, and puts the earlier part where the FraudDetector's history is looked for."""
        source = Path(self.options.history) if self.options.history else self.simulate()
        rows = data.read_rows(source, self.shape)
        live = self.live_rows
        if len(rows) < live + 1000:
            raise DemoError(
                f"{source} holds {len(rows)} rows; {live} go live and 1,000 or more must stay as history"
            )
        constant = data.shift(rows, self.shape, int(time.time() * 1000))
        past, traffic = BUILD / "history.csv.gz", BUILD / places.INPUT
        data.write_history(rows[:-live], past)
        bad, within = BAD_RECORDS, live
        if self.eventful:
            bad, within = CHAOS_BAD_RECORDS, int(CHAOS_BAD_WITHIN * self.options.rate)
        data.write_live(rows[-live:], self.shape, bad, within, traffic)
        folder = f"{bucket.detector_folder(self.namespace, self.name)}/{self.shape.history_path.strip('/')}"
        self.bucket.put({f"{folder}/demo.csv.gz": past, f"{places.FOLDER}/{places.INPUT}": traffic})
        frauds = sum(row[self.shape.label_field] in ("1", "true", "True") for row in rows[:-live])
        self.clock.say(
            f"{source.name}: {len(rows) - live:,} rows of history ({frauds:,} frauds), {live:,} to go live, "
            f"all times moved by {constant / 86_400_000:.1f} days"
        )

    def simulate(self) -> Path:
        out = BUILD / "simulated.csv.gz"
        rows = HISTORY_ROWS + self.live_rows
        self.clock.say(f"simulating {rows:,} transactions with labels, seed 7")
        pipelines("fraud_pipelines.simulator", "--rows", str(rows), "--seed", "7", "--out", str(out))
        return out

    def apply(self) -> None:
        self.kube.kubectl("apply", "-f", str(Path(self.options.cr).resolve()))
        self.clock.say(f"applied {self.options.cr}")

    def wait_live(self) -> None:
        """Follows the conditions until a model is live; shows each change, and every minute what is still not true."""
        deadline = time.monotonic() + self.options.timeout
        states: dict[str, tuple[str, str]] = {}
        reminder = time.monotonic() + REMIND_SECONDS
        while True:
            conditions = self.kube.get(*self.fd).get("status", {}).get("conditions", [])
            remind = time.monotonic() > reminder
            for condition in conditions:
                kind, state = condition["type"], (condition["status"], condition["reason"])
                if states.get(kind) != state or (remind and kind in GATES and state[0] != "True"):
                    states[kind], reminder = state, time.monotonic() + REMIND_SECONDS
                    self.clock.say(f"{kind:<18} {state[0]:<8} {state[1]:<22} {condition['message'][:140]}")
            if all(states.get(gate, ("",))[0] == "True" for gate in GATES):
                return
            if states.get("TrainingSucceeded", ("", ""))[1] in NO_MODEL:
                logs = failure.last_logs(self.kube, self.namespace, "-l", "ray.io/node-type=head")
                raise DemoError(f"training failed: {logs}")
            if time.monotonic() > deadline:
                waiting = [gate for gate in GATES if states.get(gate, ("",))[0] != "True"]
                raise DemoError(f"not true within {self.options.timeout:.0f} s: {', '.join(waiting)}")
            time.sleep(1)

    def traffic(self) -> None:
        """Sends the live rows from a Pod of the cluster and follows it to its end, with faults where asked for."""
        settle, resend = (600.0, lives.RESENT) if self.eventful else (180.0, RESENT)
        folder = f"{self.bucket.uri}/{places.FOLDER}"
        objects = pod.objects(
            self.kube,
            PLATFORM,
            self.name,
            self.namespace,
            folder,
            self.options.rate,
            settle,
            self.eventful,
            resend,
        )
        # On the server: the client's way keeps a copy of each object, and the package is too large for one.
        self.kube.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(objects))
        running = "--for=jsonpath={.status.phase}=Running"
        self.kube.kubectl("-n", self.namespace, "wait", running, f"pod/{pod.NAME}", "--timeout=90s")
        if self.eventful:
            self.break_things()
        else:
            self.follow()
        phase = self.phase()
        self.bucket.fetch(f"{places.FOLDER}/{places.EVIDENCE}", self.evidence)
        if phase not in ("Succeeded", "Running"):
            raise DemoError(f"the traffic Pod ended as {phase}; kubectl -n {self.namespace} logs {pod.NAME}")

    def phase(self) -> str:
        return str(self.kube.get("-n", self.namespace, "pod", pod.NAME)["status"]["phase"])

    def follow(self) -> None:
        """Shows the traffic Pod's lines until it has ended; a restart of the API server cuts a log off before."""
        shown = 0
        while True:
            process = self.kube.follow(pod.NAME, self.namespace)
            assert process.stdout is not None
            for number, text in enumerate(process.stdout):
                if number >= shown:
                    self.show(text)
                    shown += 1
            process.wait()
            try:
                if self.phase() != "Running":
                    return
            except KubectlError:
                pass  # the API server is away: the log goes on when it is back
            time.sleep(1)

    def break_things(self) -> None:
        """Every fault, or every step of its lives, in turn while the traffic runs; then the traffic may end."""
        follower = threading.Thread(target=self.follow, daemon=True)
        follower.start()
        there = self.kube, self.name, self.namespace, PLATFORM, self.clock.say
        own = Path(self.options.cr), self.helm_install
        breaking = lives.Lives(*there, *own) if self.options.lives else chaos.Chaos(*there)
        try:
            breaking.run()
        finally:
            breaking.write(self.evidence / "faults.json")
            self.kube.kubectl("-n", self.namespace, "exec", pod.NAME, "--", "touch", pod.STOP)
        follower.join()

    def show(self, text: str) -> None:
        try:
            line = json.loads(text)
        except ValueError:
            self.clock.say(f"  {text.rstrip()}")
            return
        if line.get("event") == "traffic":
            self.clock.say(
                f"  {line['rate']:.0f} tx/s: {line['inline']:,} inline, {line['stream']:,} streamed, {line['malformed']} malformed; "
                f"alerts {line['review'] + line['decline']} ({line['decline']} declined)"
            )
        elif line.get("event") == "example":
            answer = line["answer"]
            reasons = "; ".join(reason["text"] for reason in answer["reasons"][:3])
            self.clock.say(
                f"  one decision explained: {answer['id']} → {answer['action']} (score {answer['score']}): {reasons}"
            )
        else:
            self.clock.say("  " + ", ".join(f"{key} {value}" for key, value in line.items()))

    def passes(self, memory: dict[str, int | None]) -> bool:
        """Gathers the evidence, shows each check of its summary, and says whether all of them hold."""
        least = min(10_000, int(self.options.rate * self.options.duration))
        facts = observe.cluster_facts(self.kube, self.cluster, self.name, self.namespace, PLATFORM)
        facts |= {
            "memory_mib": memory,
            "least": least,
            "wall_s": {**self.clock.phases, "total": round(time.monotonic() - self.clock.start, 1)},
        }
        (self.evidence / "cluster.json").write_text(json.dumps(facts, indent=1))
        (self.evidence / "profile_sink_metrics.txt").write_text(
            observe.pod_metrics(self.kube, self.namespace, names.sink(self.name, "profile"))
        )
        lineages = observe.lineages(self.kube, self.name, self.namespace)
        if lineages is not None:
            (self.evidence / "lineages.json").write_text(lineages.model_dump_json(indent=1))
        self.search()
        (self.evidence / "audit.json").write_text(pipelines("fraud_pipelines.audit", str(self.evidence)))
        result = summary.summarise(self.evidence)
        result["checks"] = checks.demo_checks(result, least)
        (BUILD / "summary.json").write_text(json.dumps(result, indent=1))
        for check, held in result["checks"].items():
            self.clock.say(f"{'ok    ' if held else 'FAILED'} {check}")
        self.clock.say(
            f"sync p50 {result['latency_ms']['p50']} ms, p99 {result['latency_ms']['p99']} ms; parity {result['parity']}; "
            f"alerts {result['alerts']}; model {result['model']['version']}"
        )
        self.clock.say(f"summary: {(BUILD / 'summary.json').relative_to(ROOT)}")
        return checks.demo_passes(result["checks"])

    def search(self) -> None:
        self.logs.stop()
        report = leaks_cluster.complete(
            self.evidence / "leaks.json", BUILD / places.INPUT, self.kube.kubectl, BUILD / "podlogs"
        )
        for gap in report.gaps:
            self.clock.say(f"not searched: {gap}")

    def stay(self) -> None:
        service = names.decision_service(self.name)
        self.clock.say("the platform stays up; Ctrl-C takes it down")
        self.clock.say(f"export KUBECONFIG={self.cluster.kubeconfig}")
        self.clock.say(
            f"kubectl -n {self.namespace} get fd; kubectl -n {self.namespace} describe fd {self.name}"
        )
        self.clock.say(
            f"kubectl -n {self.namespace} port-forward svc/{service} 8080:8080   # then the README's curl"
        )
        self.clock.say(
            f"kubectl -n {self.namespace} port-forward svc/{names.console(self.name)} 8081:8080   # console"
        )
        signal.pause()


def main() -> None:
    options = arguments.parse(__doc__)
    demo = Demo(options)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    passed = False
    try:
        passed = demo.run()
        if not options.once:
            demo.stay()
    except KeyboardInterrupt:
        demo.clock.say("interrupted")
    except (DemoError, chaos.ChaosError, KubectlError, data.DataError, LocalError) as error:
        demo.clock.say(f"FAILED: {error}")
        if hasattr(demo, "kube"):
            failure.keep(demo.kube, (demo.namespace, PLATFORM), BUILD / "logs", demo.clock.say)
    finally:
        try:
            demo.logs.stop()
        finally:
            demo_cluster.take_down(demo.clock.say)
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
