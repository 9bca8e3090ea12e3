"""Measures the platform beside its baselines, in one run on one machine: ``make bench``, docs/performance.md."""
