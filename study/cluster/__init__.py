"""Ray: runs the trials of a sweep in worker processes."""
