"""One trial: its tasks in order, all lanes at once."""
