//go:build tools

// Package tools pins every program of the one-node cluster in one module, so that the packages they share compile once.
package tools

import (
	_ "github.com/cloudnativelabs/kube-router/v2/pkg/controllers/netpol"
	_ "github.com/kserve/kserve/cmd/manager"
	_ "github.com/ray-project/kuberay/ray-operator"
	_ "go.etcd.io/etcd/server/v3"
	_ "helm.sh/helm/v3/cmd/helm"
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kube-controller-manager"
	_ "k8s.io/kubernetes/cmd/kube-proxy"
	_ "k8s.io/kubernetes/cmd/kube-scheduler"
	_ "k8s.io/kubernetes/cmd/kubectl"
	_ "k8s.io/kubernetes/cmd/kubelet"
)
