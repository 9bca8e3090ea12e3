"""The feature stream: transactions in, feature vectors, profiles and dead letters out.

``stages`` holds what is done to a record and imports nothing of Flink; ``functions`` are its thin Flink adapters;
``tables`` and ``job`` are the graph. Functions live in importable modules, never in the started file: cloudpickle then
ships a name instead of a copy of the module.
"""
