"""One trial: the loop over its tasks, on all lanes at once. Torch and nothing else."""
