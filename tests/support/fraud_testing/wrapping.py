"""The key by which an API server wraps Secrets before it stores them, rotated as Kubernetes' own pages say: on the native node.

Elsewhere it is the cluster's, and what is left is to write each Secret again.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from fraud_local import paths, processes
from fraud_local.demo.kubectl import Kubectl, KubectlError
from fraud_testing.kafka import wait_for

API_SERVER: Final = "kube-apiserver"
OPTION: Final = "--encryption-provider-config"
FILE: Final = paths.CONF / "wrapping.json"
SECONDS: Final = 120.0
TRIES: Final = 5


def new_key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


def configuration(keys: Sequence[tuple[str, str]], *, plain: bool) -> dict[str, Any]:
    """The API server's own: Secrets are written by the first of ``keys``, as (name, key), and read by any, ``plain``: unwrapped ones, too."""
    wrapped = {"aescbc": {"keys": [{"name": name, "secret": key} for name, key in keys]}}
    return {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": [
            {"resources": ["secrets"], "providers": [wrapped, *([{"identity": {}}] if plain else [])]}
        ],
    }


def rewrite(kube: Kubectl) -> None:
    """Writes every Secret of the cluster again as it is; once more where somebody changed one meanwhile."""
    for attempt in range(1, TRIES + 1):
        try:
            kube.kubectl("replace", "-f", "-", stdin=kube.kubectl("get", "secrets", "-A", "-o", "json"))
            return
        except KubectlError:
            if attempt == TRIES:
                raise


def is_ours(kube: Kubectl) -> bool:
    """Whether it is the native node's API server, which we may start again."""
    return kube.kubeconfig == paths.KUBECONFIG and processes.recorded(API_SERVER) is not None


def with_configuration(command: Sequence[str], file: Path) -> list[str]:
    """The API server's command with that file in the place of any earlier one."""
    return [*(word for word in command if not word.startswith(f"{OPTION}=")), f"{OPTION}={file}"]


def use(kube: Kubectl, wanted: dict[str, Any]) -> None:
    """Starts the node's API server anew with another configuration; returns once it answers."""
    pid = processes.recorded(API_SERVER)
    if pid is None:
        raise AssertionError("the node's API server isn't running")
    command = Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")
    part = FILE.with_suffix(".part")
    part.touch(mode=0o600)
    part.write_text(json.dumps(wanted))
    part.replace(FILE)
    processes.stop(API_SERVER)
    processes.start(API_SERVER, with_configuration(command, FILE))

    def answers() -> bool:
        try:
            return "ok" in kube.kubectl("get", "--raw", "/readyz")
        except KubectlError:
            return False

    wait_for(answers, SECONDS, "the API server to answer again", 1.0)


def rotate(kube: Kubectl) -> None:
    """Wraps all Secrets by a first key, then by a second one, and takes the first one away: what it wrapped could not be read any more."""
    first, second = ("first", new_key()), ("second", new_key())
    for keys in ((first,), (second, first)):
        use(kube, configuration(keys, plain=True))
        rewrite(kube)
    use(kube, configuration((second,), plain=False))
