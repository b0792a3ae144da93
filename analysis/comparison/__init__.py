"""Sweeps compared: the same methods elsewhere.

Other data, other networks or other assumptions, side by side. `matching` says which trials of several sweeps stand for the same
method, `contrasts` computes differences to a baseline and how they change from sweep to sweep, and `page` writes them down.
"""
