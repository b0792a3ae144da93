"""Interventions, one per file; by default a trial has none.

Each file exposes `Settings` and `build(settings, seeds, device) -> Intervention`. They are configured by name,
`--set interventions/l2_init/strength=0.001`, and combine with every optimizer.

An intervention that is a dataclass, with its settings as tensors [lane] and the seeds, if it needs them, in a field `seeds`, is
trained in one stack with those of other trials, see `study.training.pack`.
"""
