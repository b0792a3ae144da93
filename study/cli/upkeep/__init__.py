"""Commands that look after sweeps: which there are, what goes."""
