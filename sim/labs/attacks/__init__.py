"""Attacks on simulated memory, one short function each: what it needs, what stops it, how often it succeeds."""

from sim.labs.attacks.attack import Attack, AttackResult, Setting, Trial, run_attack
from sim.labs.attacks.table import (
    ATTACKS,
    attack_named,
    setting_off,
    setting_on,
    setting_under,
    table_rows,
)

__all__ = [
    "ATTACKS",
    "Attack",
    "AttackResult",
    "Setting",
    "Trial",
    "attack_named",
    "run_attack",
    "setting_off",
    "setting_on",
    "setting_under",
    "table_rows",
]
