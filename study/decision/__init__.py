"""When enough seeds have run: a rule of accuracies; numpy and scipy.

The driver asks it which trials come next, the report what was decided.
"""
