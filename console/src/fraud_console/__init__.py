"""What an analyst sees of one detector: the latest alerts and whole decisions, read from the ledger.

It never writes: labels go through the decision service, so that they are in the log before anything counts them.
"""
