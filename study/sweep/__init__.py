"""Many trials as data: plan, records, search, winners.

Uses Optuna, but neither Ray nor MLflow.
"""
