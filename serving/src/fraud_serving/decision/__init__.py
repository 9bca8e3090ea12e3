"""The inline door: ``python -m fraud_serving.decision``."""
