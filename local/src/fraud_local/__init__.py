"""This machine becomes a one-node Kubernetes cluster, and stops being one without a trace.

``prerequisites``, ``build``, ``images``, ``pki``, ``node`` and ``down`` run before any environment exists: standard
library only. ``crds``, ``operators`` and the two stand-ins run with the operator's environment.
"""
