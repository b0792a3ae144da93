"""`python -m study` is the command `study`."""

from study.cli.app import main

main()
