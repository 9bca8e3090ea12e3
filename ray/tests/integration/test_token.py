"""A real Ray head as a training's Pod starts it: who has no token submits no code, reads no log and reaches no port of Ray's."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest

from fraud_testing.kafka import free_port, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.accept]
RAY = Path(sys.executable).with_name("ray")
START_SECONDS, ATTEMPTS = 150, 3


class Head(NamedTuple):
    """Loopback ports: the dashboard takes jobs, the agent runs them, GCS and the client's server speak gRPC."""

    dashboard: int
    agent: int
    gcs: int
    client: int
    token: str

    @property
    def scratch(self) -> str:
        """Ray's sockets lie below it, and a socket's path may have no more than 107 characters."""
        return f"/tmp/ray-{self.gcs}"

    def ask(self, port: int, path: str, token: str | None, body: Any = None) -> tuple[int, str]:
        """(Status, text) of a GET, or of a POST where there is a body."""
        headers = {"Content-Type": "application/json"}
        if token is not None:
            headers["X-Ray-Authorization"] = f"Bearer {token}"  # as KubeRay sends it
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def environ(self, token: str | None) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        with_token = {} if token is None else {"RAY_AUTH_TOKEN": token}
        ours = {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": self.scratch}
        return {**clean, **with_token, **ours}

    def submit(self, token: str | None, home: Path) -> subprocess.CompletedProcess[str]:
        """A job, with the command by which KubeRay's submitter sends it."""
        command = [RAY, "job", "submit", "--address", f"http://127.0.0.1:{self.dashboard}", "--"]
        return subprocess.run(
            [*map(str, command), "python", "-c", "print('answer', 6 * 7)"],
            env={**self.environ(token), "HOME": str(home)},
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    def call(self, port: int, method: str, token: str | None) -> grpc.StatusCode:
        """The status of a gRPC call with an empty message."""
        metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            try:
                channel.unary_unary(method)(b"", timeout=30, metadata=metadata)
            except grpc.RpcError as error:
                assert isinstance(error, grpc.Call)
                return error.code()
        return grpc.StatusCode.OK


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    folder = tmp_path_factory.mktemp("head")
    for attempt in range(ATTEMPTS):
        one = Head(free_port(), free_port(), free_port(), free_port(), secrets.token_urlsafe(32))
        log = folder / f"log-{attempt}"
        process = _start(one, folder, log)
        try:
            if _comes_up(process, one, log):
                yield one
                return
        finally:
            _end(process)
            shutil.rmtree(one.scratch, ignore_errors=True)
    pytest.fail(log.read_text()[-2000:])


def _comes_up(process: subprocess.Popen[bytes], head: Head, log: Path) -> bool:
    """False where it ended instead: on a busy machine its client's server gives up on the raylet, and with it the head."""
    wait_for(lambda: process.poll() is not None or _healthy(head), START_SECONDS, f"Ray's head, see {log}")
    return process.poll() is None


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(20)
    with suppress(ProcessLookupError):  # agents outlive a raylet for a while
        os.killpg(process.pid, signal.SIGKILL)


def _start(head: Head, folder: Path, log: Path) -> subprocess.Popen[bytes]:
    arguments = [
        str(RAY), "start", "--head", "--block", "--num-cpus=1", "--object-store-memory=80000000",
        f"--port={head.gcs}", f"--dashboard-port={head.dashboard}", "--dashboard-host=0.0.0.0",
        f"--dashboard-agent-listen-port={head.agent}", f"--ray-client-server-port={head.client}",
    ]  # fmt: skip
    environ = {**head.environ(head.token), "HOME": str(folder)}
    with log.open("wb") as out:
        return subprocess.Popen(
            arguments, env=environ, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )


def _healthy(head: Head) -> bool:
    """Dashboard with its job module, agent and client server answer."""
    try:
        jobs, _ = head.ask(head.dashboard, "/api/jobs/", head.token)
        agent, _ = head.ask(head.agent, "/api/healthz", None)
    except OSError:
        return False
    client = head.call(head.client, "/ray.rpc.RayletDriver/ClusterInfo", head.token)
    return (jobs, agent) == (200, 200) and client is not grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(("token", "status"), [(None, 401), ("wrong", 403)])
def test_without_the_token_nothing_is_submitted_or_read(head: Head, token: str | None, status: int) -> None:
    """Jobs, their logs, the head's log files and the agent that runs jobs are refused; only health and the empty page are open."""
    job = {"entrypoint": "true", "submission_id": "stranger"}
    assert head.ask(head.dashboard, "/api/jobs/", token, job)[0] == status
    for path in ("/api/jobs/", "/api/jobs/stranger/logs", "/api/v0/logs", "/nodes?view=summary"):
        assert head.ask(head.dashboard, path, token)[0] == status, path
    assert head.ask(head.agent, "/api/job_agent/jobs/", token, job)[0] == status
    assert head.ask(head.dashboard, "/api/gcs_healthz", token)[0] == 200
    _, jobs = head.ask(head.dashboard, "/api/jobs/", head.token)
    assert "stranger" not in jobs


@pytest.mark.parametrize("token", [None, "wrong"])
def test_without_the_token_no_port_of_rays_answers(head: Head, token: str | None) -> None:
    """The client's port and GCS, by which a driver joins the cluster, ask for it, too."""
    client, gcs = "/ray.rpc.RayletDriver/ClusterInfo", "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo"
    assert head.call(head.client, client, token) is grpc.StatusCode.UNAUTHENTICATED
    assert head.call(head.gcs, gcs, token) is grpc.StatusCode.UNAUTHENTICATED
    assert head.call(head.gcs, gcs, head.token) is grpc.StatusCode.OK


def test_only_with_the_token_a_job_is_run(head: Head, tmp_path: Path) -> None:
    """The submitter's own command ends in an error without it, and shows the job's output with it."""
    refused = head.submit(None, tmp_path)
    assert refused.returncode != 0 and "answer" not in refused.stdout
    done = head.submit(head.token, tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "answer 42" in done.stdout


def test_a_head_without_a_token_does_not_start(tmp_path: Path) -> None:
    """Where KubeRay gives none, as one before 1.5.1 does, the head ends with a message that names the token."""
    one = Head(0, 0, free_port(), 0, "")
    done = subprocess.run(
        [str(RAY), "start", "--head", f"--port={one.gcs}", "--num-cpus=1", "--include-dashboard=false"],
        env={**one.environ(None), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    shutil.rmtree(one.scratch, ignore_errors=True)
    assert done.returncode != 0
    assert "token" in (done.stdout + done.stderr).lower()
