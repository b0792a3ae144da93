"""Many trials as data: plan, records, search, winners. Optuna, no Ray, no MLflow."""
