"""The command `vmksim`: one module for each group of commands, and `main`, which ends every call."""

from sim.cli.command import cli, main

__all__ = ["cli", "main"]
