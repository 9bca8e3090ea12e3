"""What carries the topics into stores: profiles to Redis, decisions and labels to PostgreSQL, decisions to the lake.

One consumer loop, three thin writers. Imports ``fraud_contracts`` only: a sink must never need the feature engine.
"""
