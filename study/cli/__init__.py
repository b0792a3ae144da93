"""The front door: the commands of `study`."""

from study.cli.app import app, main

__all__ = ["app", "main"]
