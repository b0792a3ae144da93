"""MLflow: a copy of the records for people and reports."""
