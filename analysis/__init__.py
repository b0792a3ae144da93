"""What was learnt from the runs; no torch, no Ray."""

import os

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # as `study` does, before a module here imports MLflow
