"""What was learnt: MLflow's runs as frames, statistics, claims, figures, the report; selection and export. No torch, no Ray."""
