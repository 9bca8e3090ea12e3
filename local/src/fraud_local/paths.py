"""Every path, address and name of the local node, decided once. Standard library only."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

CLONE: Final = Path(__file__).resolve().parents[3]
LOCAL: Final = CLONE / "local"
CACHE: Final = Path(os.environ.get("FRAUD_CACHE") or Path.home() / ".cache" / "fraud-platform").resolve()

# State of the running node. All of it goes when the node goes.
STATE: Final = Path("/var/lib/fraud-platform")
PKI: Final = STATE / "pki"
CONF: Final = STATE / "conf"
LOGS: Final = STATE / "log"
RUN: Final = STATE / "run"
VOLUMES: Final = STATE / "volumes"
KUBECONFIG: Final = PKI / "admin.kubeconfig"
CONTAINERD_SOCKET: Final = STATE / "cd" / "containerd.sock"

# Built once, outside the clone, kept over restarts.
NODE_BIN: Final = CACHE / "node" / "bin"
OBJECTS_BIN: Final = CACHE / "objects" / "bin"
IMAGES: Final = CACHE / "images"
ENVS: Final = CACHE / "envs"
CRDS: Final = CACHE / "crds"
KAFKA_LIBS: Final = CACHE / "kafka" / "libs"
FLINK_JARS: Final = CACHE / "flink-jars"
FLINK_S3_JARS: Final = CACHE / "flink-s3-jars"
FLINK_HOME: Final = CACHE / "flink-home"
UV: Final = CACHE / "uv" / "bin" / "uv"
# The shipped images, built here, and where buildah keeps them: beside the storage that its user has.
BUILDAH: Final = CACHE / "buildah"
BUILT_IMAGES: Final = CACHE / "built-images"
SBOM_TOOL: Final = CACHE / "sbom" / "syft"
# Held by ``up`` and ``down``; outside the state, so that ``down`` can hold it while the state goes.
LOCK: Final = CACHE / "node.lock"

NODE: Final = "fraudnode"
NETNS: Final = "fraudnode"
CGROUP: Final = "fraudnode"
HOST_LINK: Final = "fraudhost"
NODE_LINK: Final = "fraudnode0"
NODE_ADDRESS: Final = "10.250.0.1"
HOST_ADDRESS: Final = "10.250.0.254"
NODE_NETWORK: Final = "10.250.0.0/24"
POD_NETWORK: Final = "10.244.0.0/24"
SERVICE_NETWORK: Final = "10.96.0.0/16"
API_SERVICE: Final = "10.96.0.1"
DNS_SERVICE: Final = "10.96.0.10"
API_URL: Final = f"https://{NODE_ADDRESS}:6443"

# Where Pods see the clone and Flink.
POD_CLONE: Final = "/opt/fraud"
POD_FLINK: Final = "/opt/flink"

KAFKA_VERSION: Final = "4.4.0"
STRIMZI_VERSION: Final = "1.2.0"
FLINK_OPERATOR_VERSION: Final = "1.15.0"


def base_prefix() -> Path:
    """The interpreter's own tree: environments link to it, so Pods need it at the same path."""
    return Path(sys.base_prefix).resolve()


def java_home() -> Path:
    """Home of Java 17, the version that Kafka and Flink are run with, as Debian installs it."""
    return Path("/usr/lib/jvm/java-17-openjdk-amd64")


def env_python(component: str) -> Path:
    return ENVS / component / "bin" / "python"


def site_packages(component: str) -> Path:
    return ENVS / component / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
