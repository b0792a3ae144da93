"""What was learnt from the runs; no torch, no Ray."""
