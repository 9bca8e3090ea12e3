"""The stream door: ``python -m fraud_serving.worker``. Judges what the stream computed and publishes every decision once."""
