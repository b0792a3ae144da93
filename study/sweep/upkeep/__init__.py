"""What becomes of sweeps.

Their state, their files that may go, and their trials that a later search begins with.
"""
