"""Which PCR takes what?  On a host of the TXT era, on one of 6.7 with TXT, and on one of today."""

from sim import Scenario, simulate
from sim.attest.launch import LaunchEvent
from sim.boot.launchspec import LaunchSpec
from sim.core.units import SECOND
from sim.hw.spec import FirmwareSpec, HostSpec
from sim.scenario.spec import ImageSpec
from sim.tpm.eventlog import EV, parse
from sim.tpm.tagged import EsxTag, decode_tagged

SHOWN = 5


def name(event):
    """Return what a person calls an event."""
    if event.type != EV.EVENT_TAG:
        return LaunchEvent(event.type).name
    tag = decode_tagged(event.data)
    return tag.text if tag.id in {EsxTag.MOD, EsxTag.BOOT_OPT} else EsxTag(tag.id).name


for title, generation, launch in (
    ("TXT era, enableTboot", "txt-era", True),
    ("6.7, enableTboot", "esxi-6.7", True),
    ("6.7 and later, ordinary boot", "esxi-6.7", False),
):
    result = simulate(
        Scenario(
            duration_ns=SECOND,
            host=HostSpec(firmware=FirmwareSpec(txt_enabled=True)),
            image=ImageSpec(modules=2, module_size_bytes=2048),
            options={"enableTboot": launch},
            launch=LaunchSpec(generation=generation),
        )
    )
    events = parse(result.event_log).events
    print(title)
    for pcr in (*range(11, 15), *range(17, 23)):
        names = [name(event) for event in events if event.pcr == pcr]
        shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
        value = result.pcrs["sha256"][str(pcr)]
        print(f"  {pcr}  {value[:8]}  {shown or '-'}")
