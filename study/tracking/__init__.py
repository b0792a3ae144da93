"""MLflow: a view of the records, for people and for reports."""
