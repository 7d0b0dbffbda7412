"""The books of the image: every rule that was set aside when software came onto the host.

Models: a trace record and a line of esxupdate's log for each rule that an option of an installation set aside; who called
stands in the host agent's own record (`api.call`) of the same instant.  A missing signature is told as a security alert, as
the vSphere Client does.

Leaves out: the log server that these lines go to.  They lie on the host, so an attacker with root there can drop them;
what the next boot measures it cannot.

Sources: VMware's documentation of esxcli software vib install: --no-sig-check leads to a "SECURITY ALERT" warning in the
vSphere Client, --force to a warning there.
"""

from __future__ import annotations

from sim.core.context import Sim
from sim.core.trace import record
from sim.image.install import InstallResult

__all__ = ["IMAGE_WAIVER", "note_waivers"]

IMAGE_WAIVER = record("image.waiver", host=str, vibs=str, option=str, rule=str)
"""An option set a rule aside while these VIBs were installed: the option and esxcli's name of the rule."""

_ALERTS = ("VibSignatureError", "AcceptanceConfigError")
_LINE_CHARS_MAX = 400


def note_waivers(sim: Sim, host: str, result: InstallResult) -> None:
    """Enter what an installation set aside; one that broke no rule leaves nothing here."""
    vibs = ", ".join(result.installed)
    for waiver in result.waivers:
        sim.trace.emit(IMAGE_WAIVER, host, vibs, waiver.option, waiver.rule)
        kind = "SECURITY ALERT" if waiver.rule in _ALERTS else "WARNING"
        text = " ".join(waiver.text.split())[:_LINE_CHARS_MAX]
        sim.log("esxupdate", f"{kind}: --{waiver.option} was used to install {vibs}: {text}")
