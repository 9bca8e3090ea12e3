"""Everything that answers: the decision service, the decision worker, the KServe predictor and its initializer.

Both doors (service and worker) decide by ``ruling.Ruling.judge``, so policy, split, score map and reasons exist once.
"""
