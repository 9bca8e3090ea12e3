"""A real MLflow server on a free loopback port, with proxied artifacts as the chart's; ``missing()`` says what keeps it from starting."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fraud_contracts.names import Identity
from fraud_testing.kafka import CACHE, free_port, wait_for

PROGRAM: Final = CACHE / "envs" / "mlflow" / "bin" / "mlflow"
CHART_FILES: Final = Path(__file__).parents[3] / "charts" / "fraud-platform" / "files" / "mlflow"
ADMIN: Final = "fraud"
# MLflow wants twelve characters.
PASSWORD: Final = "the-platforms-own"


def missing() -> str | None:
    return None if PROGRAM.exists() else f"no MLflow in {PROGRAM}: make env-mlflow"


@dataclass(frozen=True)
class Server:
    """``url`` is its address, without a login."""

    url: str
    log: Path

    @property
    def admin(self) -> str:
        """The address with the login of who makes the others."""
        return self._address(ADMIN)

    def detector(self, identity: Identity) -> tuple[str, str]:
        """The addresses by which its training and its predictors log in, with what the operator gives them."""
        experiment = self._post("2.0/mlflow/experiments/create", name=identity.experiment)["experiment_id"]
        self._post("2.0/mlflow/registered-models/create", name=identity.model)
        model = {"resource_type": "registered_model", "resource_id": identity.model}
        writes = {"resource_type": "experiment", "resource_id": experiment, "permission": "EDIT"}
        writer = self._user(f"{identity.mlflow_writers}00000000", writes, {**model, "permission": "EDIT"})
        return writer, self._user(f"{identity.mlflow_readers}00000000", {**model, "permission": "READ"})

    @property
    def password(self) -> Path:
        """The file with the administrator's password, where it asks for logins."""
        return self.log.with_name("password")

    def _user(self, name: str, *rights: dict[str, str]) -> str:
        self._post("2.0/mlflow/users/create", username=name, password=PASSWORD)
        for right in rights:
            self._post("3.0/mlflow/users/permissions/grant", username=name, **right)
        return self._address(name)

    def _address(self, user: str) -> str:
        return self.url.replace("://", f"://{user}:{PASSWORD}@")

    def _post(self, path: str, **content: str) -> dict[str, str]:
        login = base64.b64encode(f"{ADMIN}:{PASSWORD}".encode()).decode()
        headers = {"Authorization": f"Basic {login}", "Content-Type": "application/json"}
        question = urllib.request.Request(f"{self.url}/api/{path}", json.dumps(content).encode(), headers)
        with urllib.request.urlopen(question, timeout=20) as answer:
            read: dict[str, str] = json.load(answer)
        return read


def _users(folder: Path) -> tuple[list[str], dict[str, str]]:
    """Arguments and environment by which it asks for logins as the chart's does, with the users' database in ``folder``."""
    config = folder / "auth.ini"
    config.write_text((CHART_FILES / "auth.ini").read_text().replace("/tmp/", f"{folder}/"))
    (folder / "password").write_text(PASSWORD)
    environment = {
        "MLFLOW_PASSWORD_FILE": str(folder / "password"),
        "PYTHONPATH": str(CHART_FILES),
        "MLFLOW_AUTH_CONFIG_PATH": str(config),
        "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "for-tests",
        "MLFLOW_BASIC_AUTH_FAIL_CLOSED": "true",
    }
    return ["--app-name", "basic-auth", "--enable-workspaces"], environment


@contextmanager
def server(
    *, users: bool = False, artifacts: str = "", more: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """``users``: it asks for logins. ``artifacts`` is where it keeps them, else its own folder; ``more`` its environment."""
    with tempfile.TemporaryDirectory(prefix="fraud-mlflow-") as name:
        folder, port = Path(name), free_port()
        arguments, environment = _users(folder) if users else ([], {"PYTHONPATH": ""})
        environment |= {
            "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            **(more or {}),
        }
        command = [
            str(PROGRAM), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--serve-artifacts",
            "--backend-store-uri", f"sqlite:///{folder}/mlflow.db",
            "--artifacts-destination", artifacts or str(folder / "artifacts"), *arguments,
        ]  # fmt: skip
        running = Server(f"http://127.0.0.1:{port}", folder / "server.log")
        with running.log.open("wb") as log:
            process = subprocess.Popen(
                command, env={**os.environ, **environment}, cwd=folder, stdout=log, stderr=log, start_new_session=True
            )  # fmt: skip

        def answers() -> bool:
            assert process.poll() is None, running.log.read_text()[-2000:]
            try:
                with urllib.request.urlopen(f"{running.url}/health", timeout=2) as answer:
                    return bool(answer.status == 200)
            except (urllib.error.URLError, OSError):
                return False

        try:
            wait_for(answers, 240, "MLflow")
            yield running
        finally:
            # The server and the workers that it started.
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
