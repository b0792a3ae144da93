"""What becomes of sweeps: their state, and files that may go."""
