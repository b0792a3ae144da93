"""Figures: numbers in, PNG out."""
