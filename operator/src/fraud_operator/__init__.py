"""The operator: watches FraudDetector objects and keeps their children as the spec says.

Imports ``fraud_contracts`` and ``fraud_process`` only. ``desired``, ``status``, ``rollout``, ``readiness`` and ``training``
are pure; what talks to a server is in ``kube``, ``observe`` and ``registry``.
"""
