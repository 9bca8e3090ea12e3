"""The cluster where a Docker engine answers: kind, with the upstream operators from their own charts. Standard library only."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from fraud_local import paths
from fraud_local.real_images.recipes import RECIPES, REGISTRY
from fraud_local.shell import LocalError, run, say

NAME = "fraud-platform"
PREREQUISITES = paths.CLONE / "manifests" / "prerequisites"


def docker_answers() -> bool:
    """Whether a Docker engine is reachable; its client alone is not enough."""
    if not shutil.which("docker"):
        return False
    try:
        return (
            subprocess.run(["docker", "info"], check=False, capture_output=True, timeout=15).returncode == 0
        )
    except subprocess.TimeoutExpired:
        return False


def exists() -> bool:
    return bool(shutil.which("kind")) and docker_answers() and NAME in run("kind", "get", "clusters").split()


def built_images() -> list[str]:
    """This version's images, as docker calls them; LocalError where it lacks one: the cluster's Pods would wait for it for ever."""
    wanted = [recipe.reference(REGISTRY.removeprefix("docker.io/")) for recipe in RECIPES]
    there = set(run("docker", "images", "--format", "{{.Repository}}:{{.Tag}}").split())
    if absent := [image for image in wanted if image not in there]:
        raise LocalError(f"docker has no {', '.join(absent)}: run `make images CONTAINER=docker` first")
    return wanted


def up() -> None:
    """The kind cluster, our images loaded into it, and the pinned prerequisites installed."""
    for program in ("kind", "kubectl", "helm"):
        if not shutil.which(program):
            raise LocalError(f"{program} is not on PATH; it is needed for a kind cluster")
    images = built_images()
    if not exists():
        say("kind: creating the cluster ...")
        run("kind", "create", "cluster", "--name", NAME, "--wait", "120s")
    for image in images:
        say(f"kind: loading {image}")
        run("kind", "load", "docker-image", "--name", NAME, image)
    script = PREREQUISITES / "install.sh"
    if script.exists():
        say("kind: prerequisites ...")
        run("bash", script)
    say(f"kind cluster {NAME}: up")


def delete() -> None:
    """Delete the kind cluster if there is one."""
    if exists():
        run("kind", "delete", "cluster", "--name", NAME)
        say(f"kind cluster {NAME}: deleted")


def kubeconfig() -> Path:
    return Path.home() / ".kube" / "config"
