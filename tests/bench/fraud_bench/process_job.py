"""Baseline: the same job in PyFlink's default mode, where records travel between the JVM and Python processes beside it."""

from __future__ import annotations

import sys

from fraud_flink import job

if __name__ == "__main__":
    job.FIXED["python.execution-mode"] = "process"
    job.main(sys.argv[1:])
