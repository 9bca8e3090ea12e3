"""kubectl and helm as the demo uses them: the same binaries a person would, so that what it shows can be repeated."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class KubectlError(Exception):
    """kubectl or helm failed; the message is what it printed."""


@dataclass(frozen=True)
class Kubectl:
    """The tools' view of one cluster, by its kubeconfig and the folder of the tools. Each raises KubectlError."""

    kubeconfig: Path
    tools: Path

    def _environment(self) -> dict[str, str]:
        path = f"{self.tools}:{os.environ['PATH']}"
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig), "PATH": path}

    def run(self, tool: str, *arguments: str, stdin: str | None = None, timeout: float = 120) -> str:
        process = subprocess.run(
            [tool, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=self._environment(),
            check=False,
        )
        if process.returncode:
            raise KubectlError(
                f"{tool} {' '.join(arguments[:4])}: {process.stderr.strip() or process.stdout.strip()}"
            )
        return process.stdout

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout: float = 120) -> str:
        return self.run("kubectl", *arguments, stdin=stdin, timeout=timeout)

    def helm(self, *arguments: str, timeout: float = 300) -> str:
        return self.run("helm", *arguments, timeout=timeout)

    def get(self, *arguments: str) -> dict[str, Any]:
        """Objects as kubectl gives them; an empty object where there is none."""
        text = self.kubectl("get", *arguments, "-o", "json", "--ignore-not-found")
        objects: dict[str, Any] = json.loads(text) if text.strip() else {}
        return objects

    @contextmanager
    def forward(self, target: str, namespace: str, port: int) -> Iterator[int]:
        """A local port that leads to the target's ``port`` while the block runs."""
        process = subprocess.Popen(
            ["kubectl", "-n", namespace, "port-forward", target, f":{port}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self._environment(),
        )
        try:
            assert process.stdout is not None
            # kubectl says where it listens, or why not and ends.
            line = process.stdout.readline()
            match = re.search(r"127\.0\.0\.1:(\d+)", line)
            if match is None:
                raise KubectlError(f"kubectl port-forward {target}: {line.strip()}")
            yield int(match[1])
        finally:
            process.terminate()
            process.wait()

    def follow(self, pod: str, namespace: str) -> subprocess.Popen[str]:
        """A process whose standard output is the Pod's log, to its end."""
        command = ["kubectl", "-n", namespace, "logs", "-f", pod]
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=self._environment(),
        )
