"""The operators of the local node: KubeRay and KServe as they are, and stand-ins for Strimzi's and Flink's.

They run as host processes in the node's network with the cluster's DNS, as the cluster's administrator. KServe's webhooks
are reached by URL instead of by a Service; everything else is upstream's.

    python -m fraud_local.operators
"""

from __future__ import annotations

import base64
import json
import sys
from typing import Any

import yaml

from fraud_local import crds, node, paths, processes
from fraud_local.shell import main, say, wait_for

KSERVE_NAMESPACE = "kserve"
KSERVE_PORT = 9443
NO_IMAGE = "localhost/none:1"


def kserve_config() -> dict[str, str]:
    """What ``inferenceservice-config`` must say; agents and batchers that we don't use name an image that isn't there."""
    small = {"memoryRequest": "100Mi", "memoryLimit": "1Gi", "cpuRequest": "100m", "cpuLimit": "1"}
    parts: dict[str, Any] = {
        "deploy": {"defaultDeploymentMode": "Standard"},
        "ingress": {
            "enableGatewayApi": False,
            "disableIngressCreation": True,
            "disableIstioVirtualHost": True,
            "ingressGateway": "knative-serving/knative-ingress-gateway",
            "localGateway": "knative-serving/knative-local-gateway",
            "localGatewayService": "knative-local-gateway.istio-system.svc.cluster.local",
            "kserveIngressGateway": "kserve/kserve-ingress-gateway",
            "ingressDomain": "example.com",
            "ingressClassName": "none",
            "domainTemplate": "{{ .Name }}-{{ .Namespace }}.{{ .IngressDomain }}",
            "urlScheme": "http",
        },
        "storageInitializer": {
            "image": NO_IMAGE, "memoryRequest": "64Mi", "memoryLimit": "512Mi", "cpuRequest": "50m", "cpuLimit": "1",
            "caBundleConfigMapName": "", "caBundleVolumeMountPath": "/etc/ssl/custom-certs", "enableModelcar": False,
            "cpuModelcar": "10m", "memoryModelcar": "15Mi",
        },
        "credentials": {
            "storageSpecSecretName": "storage-config",
            "storageSecretNameAnnotation": "serving.kserve.io/storageSecretName",
            "gcs": {"gcsCredentialFileName": "gcloud-application-credentials.json"},
            "s3": {"s3AccessKeyIDName": "AWS_ACCESS_KEY_ID", "s3SecretAccessKeyName": "AWS_SECRET_ACCESS_KEY"},
        },
        "logger": {"image": NO_IMAGE, **small, "defaultUrl": "http://default-broker"},
        "batcher": {"image": NO_IMAGE, **small, "maxBatchSize": "32", "maxLatency": "5000"},
        "agent": {"image": NO_IMAGE, **small},
        "router": {"image": NO_IMAGE, **small, "headers": {"propagate": []}},
        "explainers": {},
        "metricsAggregator": {"enableMetricAggregation": "false", "enablePrometheusScraping": "false"},
        "security": {"autoMountServiceAccountToken": True},
        "inferenceService": {
            "serviceClusterIPNone": False,
            "resource": {"cpuLimit": "1", "memoryLimit": "1Gi", "cpuRequest": "50m", "memoryRequest": "128Mi"},
        },
        "opentelemetryCollector": {
            "scrapeInterval": "5s", "metricReceiverEndpoint": "keda-otel-scaler.keda.svc:4317",
            "metricScalerEndpoint": "keda-otel-scaler.keda.svc:4318",
        },
        "autoscaler": {},
    }  # fmt: skip
    return {name: json.dumps(part) for name, part in parts.items()}


def by_url(configurations: list[dict[str, Any]], base: str, authority: bytes) -> list[dict[str, Any]]:
    """Webhook configurations that call a host process instead of a Service."""
    bundle = base64.b64encode(authority).decode()
    for configuration in configurations:
        configuration["metadata"].pop("creationTimestamp", None)
        for webhook in configuration["webhooks"]:
            path = webhook["clientConfig"]["service"]["path"]
            webhook["clientConfig"] = {"url": base + path, "caBundle": bundle}
    return configurations


def apply_crds() -> None:
    """All upstream CRDs, Established. Ours is in the chart: helm would refuse to take over what it didn't make."""
    crds.ensure()
    items = json.loads(crds.APPLIED.read_text())
    installed = set(node.kubectl("get", "crd", "-o", "name").split())
    absent = [
        crd
        for crd in items
        if f"customresourcedefinition.apiextensions.k8s.io/{crd['metadata']['name']}" not in installed
    ]
    if absent:
        document = json.dumps({"apiVersion": "v1", "kind": "List", "items": absent})
        # Upstream's own files; the client's check of them would first fetch and read every schema of the server.
        node.kubectl("create", "--validate=false", "-f", "-", stdin=document)
    names = [f"crd/{crd['metadata']['name']}" for crd in items]
    node.kubectl("wait", "--for=condition=Established", "--timeout=90s", *names)
    say(f"{len(names)} CRDs: Established")


def _start(name: str, command: list[Any], env: dict[str, str] | None = None) -> None:
    if processes.recorded(name) is None:
        processes.start(
            name, command, env={"KUBECONFIG": str(paths.KUBECONFIG), **(env or {})}, resolver=True
        )


def kuberay() -> None:
    """KubeRay polls each Ray head by its Service name, hence the cluster's DNS."""
    _start(
        "kuberay",
        [
            paths.NODE_BIN / "ray-operator", "-kubeconfig", paths.KUBECONFIG, "-enable-leader-election=false",
            "-metrics-addr", "127.0.0.1:18080", "-health-probe-bind-address", "127.0.0.1:18082", "-log-stdout-encoder", "json",
        ],
    )  # fmt: skip


def kserve() -> None:
    """The KServe manager, its ConfigMap and, once it answers, its webhooks."""
    scratch = paths.STATE / "kserve"
    certificates = scratch / "k8s-webhook-server" / "serving-certs"
    certificates.mkdir(parents=True, exist_ok=True)
    for name in ("crt", "key"):
        (certificates / f"tls.{name}").write_bytes((paths.PKI / f"webhook.{name}").read_bytes())
    objects = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": KSERVE_NAMESPACE}},
        {
            "apiVersion": "v1", "kind": "ConfigMap", "data": kserve_config(),
            "metadata": {"name": "inferenceservice-config", "namespace": KSERVE_NAMESPACE},
        },
    ]  # fmt: skip
    _apply(objects)
    _start(
        "kserve",
        [
            paths.NODE_BIN / "kserve-manager",
            "--metrics-addr",
            "127.0.0.1:18090",
            "--health-probe-addr",
            "127.0.0.1:18091",
        ],
        env={"TMPDIR": str(scratch), "POD_NAMESPACE": KSERVE_NAMESPACE},
    )


def _kserve_ready() -> bool:
    processes.require_alive("kserve")
    return node.answers("http://127.0.0.1:18091/readyz")


def _kuberay_ready() -> bool:
    processes.require_alive("kuberay")
    return node.answers("http://127.0.0.1:18082/readyz")


def _apply(objects: list[dict[str, Any]]) -> None:
    node.kubectl(
        "apply",
        "--server-side",
        "--force-conflicts",
        "-f",
        "-",
        stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}),
    )


def standin(name: str) -> None:
    """One of our stand-ins, from this clone, in the operator's environment."""
    sources = f"{paths.LOCAL / 'src'}:{paths.CLONE / 'contracts' / 'src'}"
    env = {
        "PYTHONPATH": sources,
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
        "FRAUD_CACHE": str(paths.CACHE),
    }
    _start(f"{name}-standin", [sys.executable, "-m", f"fraud_local.{name}_standin"], env=env)


def up() -> None:
    """CRDs, then the four operators, then KServe's webhooks."""
    apply_crds()
    kuberay()
    kserve()
    standin("strimzi")
    standin("flink")
    wait_for("KServe is ready", _kserve_ready, 60)
    webhooks = by_url(
        list(yaml.safe_load_all(crds.WEBHOOKS.read_text())),
        f"https://{paths.NODE_ADDRESS}:{KSERVE_PORT}",
        (paths.PKI / "ca.crt").read_bytes(),
    )
    _apply(webhooks)
    say("KServe: ready, webhooks in place")
    wait_for("KubeRay is ready", _kuberay_ready, 60)
    say("KubeRay: ready")
    for name in ("strimzi-standin", "flink-standin"):
        processes.require_alive(name)
    say("Strimzi and Flink stand-ins: running")


if __name__ == "__main__":
    main(up)
