"""Whether a verdict still speaks of the host as it is: a verdict is about one boot, and it ages.

Models: the comparison of the boot that was judged with the boot that the host says it is in, and of the verdict's age
with a limit.  A host that was rebooted without anybody attesting it has a verdict that says nothing of what runs now.

Leaves out: a host that lies about its boot; the next attestation shows that by the reset counter of its TPM.

Sources: VMware's vSphere Security guide (attestation on add, reboot and reconnect, and at no other time);
vSphere Web Services API (HostTpmAttestationInfo.time).
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sim.core.units import SECOND
from sim.vsphere.inventory import HostEntry

__all__ = ["why_stale"]


def why_stale(entry: HostEntry, boot_id: str, now: datetime, age_ns_max: int | None = None) -> str:
    """Return why the verdict on a host that is in boot `boot_id` at `now` no longer holds; "" when it does.

    A host without a verdict has none that could be stale.  `age_ns_max` None lets a verdict hold for the whole boot.
    """
    verdict = entry.tpm_attestation
    if verdict is None:
        return ""
    since = f"{verdict.time:%Y-%m-%dT%H:%M:%SZ}"
    if boot_id != entry.boot_id:
        return f"attested at {since} in boot {entry.boot_id}, and now in boot {boot_id}"
    age = now - verdict.time
    if age_ns_max is not None and age > timedelta(microseconds=age_ns_max // 1000):
        return f"attested at {since}, more than {age_ns_max // SECOND} s ago"
    return ""
