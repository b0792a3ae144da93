"""When enough seeds have run; numpy and scipy.

The driver asks it which trials come next, the report what was decided.
"""
