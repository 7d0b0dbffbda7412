"""Checks that may be switched off unnoticed, as `ablation` names them, each with its reason.

Models: a second line of defence, or a check that saves time alone.  Whatever stands here, another check refuses too, or
it changes no outcome.
Leaves out: checks that only lack a test.
"""

__all__ = ["REDUNDANT"]

REDUNDANT: dict[str, str] = {}
