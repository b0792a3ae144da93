"""Ray: where trials run, and how they get there and back."""
