"""The commands of the command line, by name."""

import typer

from study.cli import app

COMMANDS = typer.main.get_command(app).commands
