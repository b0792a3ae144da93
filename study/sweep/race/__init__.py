"""Races: searches that give the better half more seeds.

What is decided when is `study.decision.halving`; here are the records that it is decided by, and the search.
"""
