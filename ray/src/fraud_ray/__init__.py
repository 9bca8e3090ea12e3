"""Training: history in, features by replay, a search on Ray, and one registered model version out.

``train`` is a RayJob's entrypoint; everything it calls is plain functions, so a test runs the same code without a cluster.
"""
