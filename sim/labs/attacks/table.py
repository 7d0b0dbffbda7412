"""The table of attacks, and the settings in which each is run: defence off, defence on, or a profile as it is.

Models: a lab in which a base has 64 places, so that rates can be measured; profiles with all their bits.

Leaves out: attacks on hardware itself (disturbed rows, speculation).  Sources: the attacks name theirs.
"""

from __future__ import annotations

from attrs import fields

from sim.errors import ScenarioError
from sim.kernel.layout import RELEASES, ReleaseProfile
from sim.kernel.layout.spec import LayoutSpec
from sim.labs.attacks.attack import Attack, AttackResult, Setting, run_attack
from sim.labs.attacks.guessing import GUESSING_ATTACKS
from sim.labs.attacks.kernel import KERNEL_ATTACKS
from sim.labs.attacks.rights import RIGHTS_ATTACKS
from sim.labs.attacks.sharing import SHARING_ATTACKS

__all__ = ["ATTACKS", "attack_named", "setting_off", "setting_on", "setting_under", "table_rows"]

ATTACKS: dict[str, Attack] = {
    attack.name: attack for attack in (*RIGHTS_ATTACKS, *GUESSING_ATTACKS, *KERNEL_ATTACKS, *SHARING_ATTACKS)
}
"""All attacks by name, in the order of the table."""

LAB_BITS = 6
"""The bits of each base in the lab: so few that rates can be measured."""

LAB_HEAP_BITS_MORE = 10


def attack_named(name: str) -> Attack:
    """Return the attack of that name.

    Errors: `ScenarioError`.
    """
    if name not in ATTACKS:
        raise ScenarioError("attack", "unknown", got=name, wanted="one of " + ", ".join(ATTACKS))
    return ATTACKS[name]


def setting_off(attack: Attack) -> Setting:
    """Return the lab's setting in which the defence against an attack is off."""
    release = RELEASES["none"] if attack.off == "nothing" else _reduced(LAB_BITS)
    return Setting(release=release, defended=False)


def setting_on(_attack: Attack) -> Setting:
    """Return the lab's setting in which the defence is on: ESXi's profile with few bits."""
    return Setting(release=_reduced(LAB_HEAP_BITS_MORE), defended=True)


def setting_under(attack: Attack, release: ReleaseProfile) -> Setting:
    """Return the setting of a profile with all its bits.

    The kernel's own defences are on (off under `none`), a service stays down after some crashes, and defences that no
    profile has are off.
    """
    return Setting(release=release, defended=release.name != "none" and not attack.only_in_lab)


def table_rows(
    name: str | None, release: ReleaseProfile | None, *, trials: int, seed: int
) -> list[dict[str, object]]:
    """Run one attack, or all: with the defence off and on, or under a profile; return a row of values for each run.

    Errors: `ScenarioError` for an attack that does not exist.
    """
    rows = []
    for attack in ATTACKS.values() if name is None else (attack_named(name),):
        settings = (
            (setting_off(attack), setting_on(attack))
            if release is None
            else (setting_under(attack, release),)
        )
        for setting in settings:
            result = run_attack(attack, setting, trials=trials, seed=seed)
            values = {field.name: getattr(result, field.name) for field in fields(AttackResult)}
            told = {"needs": attack.needs, "stopped_by": attack.stopped_by, "measured": result.measured}
            rows.append(values | told)
    return rows


def _reduced(heap_bits: int) -> ReleaseProfile:
    spec = LayoutSpec(
        profile="esxi-8.x",
        exe_bits=LAB_BITS,
        mmap_bits=LAB_BITS,
        stack_bits=LAB_BITS,
        heap_bits=heap_bits,
    )
    return spec.release()
