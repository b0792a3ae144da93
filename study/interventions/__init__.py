"""Interventions, one per file; by default a trial has none.

Each file exposes `Settings` and `build(settings, seeds, device) -> Intervention`. They are configured by name,
`--set interventions/l2_init/strength=0.001`, and combine with every optimizer.
"""
