#!/usr/bin/env bash
# Installs the operators that the platform builds on, from their projects' own charts, into the cluster of the current
# kubeconfig. Running it again changes nothing; a changed version below upgrades. Needs helm 3.8 or newer, kubectl and the
# rights of a cluster administrator.
#
# Each operator watches all namespaces, since a FraudDetector may be made in any. To narrow one down, see the setting at
# its chart and give the platform's chart the same list (operator.watchNamespaces).
#
# Helm installs the CRDs of Strimzi, Flink and KubeRay once and never upgrades them: before raising one of these
# versions, apply the new CRDs with `kubectl apply --server-side`. KServe's CRDs are a chart of their own and do follow.
#
# `make kind-up` runs it, as the workflow kind.yml does; `make test` has no Docker, so no such cluster either, and doesn't.
set -euo pipefail

# KServe's webhooks get their certificates from it. Its chart is published by OCI from 1.18 on; KServe 0.20.0 is tested with 1.17.0, and
# asks for nothing that changed since.
CERT_MANAGER_VERSION=v1.19.4
# Its resources are kafka.strimzi.io/v1 only (since 1.0), as ours are. Runs Kafka 4.2 and 4.3.
STRIMZI_VERSION=1.2.0
# The first that writes status.conditions; knows Flink up to 2.2 (flinkVersion v2_2).
FLINK_OPERATOR_VERSION=1.15.0
# Ray 2.53 and newer answer one HTTP health check, which this version asks for.
KUBERAY_VERSION=1.6.2
# predictor.storageContainerName came with it; the platform's predictors name their downloader so.
KSERVE_VERSION=v0.20.0

WAIT=${WAIT:-10m}

# chart RELEASE NAMESPACE CHART VERSION [more arguments of helm...]
chart() {
  local release=$1 namespace=$2 name=$3 version=$4
  shift 4
  echo "── $release $version (namespace $namespace)"
  helm upgrade --install "$release" "$name" --version "$version" --namespace "$namespace" --create-namespace \
    --wait --timeout "$WAIT" "$@"
}

for program in helm kubectl; do
  command -v "$program" >/dev/null || { echo "$program is not on PATH" >&2; exit 1; }
done

# One that was installed in another way serves as well and is left alone.
if helm status cert-manager -n cert-manager >/dev/null 2>&1 || ! kubectl get crd certificates.cert-manager.io >/dev/null 2>&1; then
  chart cert-manager cert-manager oci://quay.io/jetstack/charts/cert-manager "$CERT_MANAGER_VERSION" --set crds.enabled=true
fi

# Namespaces: watchAnyNamespace, or watchNamespaces={a,b}.
chart strimzi strimzi oci://quay.io/strimzi-helm/strimzi-kafka-operator "$STRIMZI_VERSION" --set watchAnyNamespace=true

# Namespaces: watchNamespaces={a,b}; all by default. No webhook: what it would refuse is told in status.error all the same,
# which the platform's operator reads. No account for jobs: each detector gets its own.
chart flink-kubernetes-operator flink-operator flink-kubernetes-operator "$FLINK_OPERATOR_VERSION" \
  --repo "https://archive.apache.org/dist/flink/flink-kubernetes-operator-$FLINK_OPERATOR_VERSION/" \
  --set webhook.create=false --set jobServiceAccount.create=false

# Namespaces: watchNamespace={a,b} with singleNamespaceInstall=true; all by default.
chart kuberay-operator ray-operator kuberay-operator "$KUBERAY_VERSION" --repo https://ray-project.github.io/kuberay-helm/

# Standard mode: Deployments and Services, no Knative. No Ingress and no Istio object is made, as predictors are called
# inside the cluster only. KServe always watches all namespaces.
chart kserve-crd kserve oci://ghcr.io/kserve/charts/kserve-crd "$KSERVE_VERSION"
chart kserve kserve oci://ghcr.io/kserve/charts/kserve-resources "$KSERVE_VERSION" \
  --set kserve.controller.deploymentMode=Standard \
  --set kserve.controller.gateway.disableIngressCreation=true \
  --set kserve.controller.gateway.disableIstioVirtualHost=true

echo "prerequisites: installed"
