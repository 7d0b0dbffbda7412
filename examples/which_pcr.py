"""Where does one flipped bit show when Secure Boot is off?  Its PCR, and what the verifier names."""

from attrs import evolve

from sim import Scenario, simulate
from sim.core.units import SECOND
from sim.hw.spec import FirmwareSpec, HostSpec
from sim.scenario.faults import FaultSpec
from sim.scenario.spec import ImageSpec, VCenterSpec

TARGETS = (
    "bootbank/k.b00",
    "bootbank/s.v00",
    "vib/vmkusb",
    "bootbank/useropts.gz",
    "bootbank/imgdb.tgz",
    "loader",
)
scenario = Scenario(
    name="which-pcr",
    duration_ns=3 * SECOND,
    host=HostSpec(firmware=FirmwareSpec(secure_boot=False)),
    image=ImageSpec(modules=2, module_size_bytes=2048),
    vcenter=VCenterSpec(),
)
clean = simulate(scenario).pcrs["sha256"]
print(f"{'target':<22}{'boot':<9}{'PCRs':<8}named by the verifier")
for target in TARGETS:
    flip = FaultSpec(kind="flip_bit", target=target, unpacked=True)
    result = simulate(evolve(scenario, faults=(flip,)))
    changed = [pcr for pcr, value in result.pcrs["sha256"].items() if value != clean[pcr]]
    named = [
        reason.component or reason.code
        for reason in result.attestation.reasons
        if reason.code != "secure_boot"
    ]
    print(
        f"{target:<22}{result.boot.state:<9}{','.join(changed):<8}{', '.join(named) or result.boot.message}"
    )
