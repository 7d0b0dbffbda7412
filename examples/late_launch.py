"""A late launch that must fail: what is left in TXT.ERRORCODE, and does the host boot without it?  Policy by policy."""

from attrs import evolve

from sim import Scenario, simulate
from sim.boot.launchspec import FAILURE_ACTIONS, LaunchSpec
from sim.core.units import SECOND
from sim.hw.spec import FirmwareSpec, HostSpec
from sim.scenario.faults import FaultSpec
from sim.scenario.spec import ImageSpec, VCenterSpec

CAUSES = (
    ("sinit", "chipset"),
    ("sinit", "bit"),
    ("sinit", "revoked"),
    ("launch_policy", "mle"),
    ("launch_policy", "state"),
    ("launch_policy", "data"),
)
scenario = Scenario(
    duration_ns=2 * SECOND,
    host=HostSpec(firmware=FirmwareSpec(txt_enabled=True)),
    image=ImageSpec(modules=1, module_size_bytes=2048),
    options={"enableTboot": True},
    vcenter=VCenterSpec(launch="required"),
)
print(f"{'what is wrong':<22}{'policy':<10}{'boot':<9}{'boots':>5}  {'TXT.ERRORCODE':<15}attestation")
for cause in ((), *CAUSES):
    faults = (FaultSpec(kind=cause[0], defect=cause[1]),) if cause else ()
    for action in FAILURE_ACTIONS if cause else ("reset",):
        result = simulate(
            evolve(scenario, launch=LaunchSpec(policy="list", on_failure=action), faults=faults)
        )
        why = ", ".join(reason.code for reason in result.attestation.reasons)
        print(
            f"{' '.join(cause) or 'nothing':<22}{action:<10}{result.boot.state:<9}{result.boot.boots:>5}  "
            f"{result.txt.errorcode:#010x}     {result.attestation.status}{f' ({why})' if why else ''}"
        )
