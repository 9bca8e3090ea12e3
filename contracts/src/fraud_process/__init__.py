"""What a process of the platform needs beside its work: health and metrics, Kafka settings, bounded calls, an end in time.

Imports ``fraud_contracts`` only. Each module names the library that it needs; a component imports those that it has.
"""
