"""A host sleeps in S3, or its TPM is reset behind its back: who notices?  With a late launch and without."""

from sim import Scenario, simulate
from sim.core.units import SECOND
from sim.hw.spec import FirmwareSpec, HostSpec
from sim.scenario.faults import FaultSpec
from sim.scenario.spec import ImageSpec, TpmSpec, VCenterSpec
from sim.tpm.fault_spec import Fault

SLEEP = FaultSpec(kind="suspend", at_ns=5 * SECOND, sleep_ns=10 * SECOND)
WRITE = FaultSpec(kind="alter_memory", target="kernel", byte=4096, bit=0, at_ns=8 * SECOND)
RESET = FaultSpec(kind="tpm_reset", at_ns=5 * SECOND)
LOST = Fault(kind="drop", command="Shutdown")
CASES = (
    ("sleep", (SLEEP,), ()),
    ("sleep, memory written", (SLEEP, WRITE), ()),
    ("sleep, TPM not told", (SLEEP,), (LOST,)),
    ("TPM reset, log replayed", (RESET,), ()),
)
print(f"{'what happens':<25}{'launch':<8}{'host':<9}{'PCR 0':<10}{'PCR 18':<10}attestation")
for title, faults, tpm_faults in CASES:
    for launch in (False, True):
        result = simulate(
            Scenario(
                duration_ns=30 * SECOND,
                host=HostSpec(firmware=FirmwareSpec(txt_enabled=True)),
                image=ImageSpec(modules=1, module_size_bytes=2048),
                options={"enableTboot": launch},
                tpm=TpmSpec(faults=tpm_faults),
                faults=faults,
                vcenter=VCenterSpec(attest_every_ns=20 * SECOND, allow_resume=True),
            )
        )
        pcrs = result.pcrs["sha256"]
        why = ", ".join(reason.code for reason in result.attestation.reasons)
        verdict = why or (result.boot.message or result.attestation.status).partition(":")[0]
        print(
            f"{title:<25}{'yes' if launch else 'no':<8}{result.boot.state:<9}"
            f"{pcrs['0'][:8]:<10}{pcrs['18'][:8]:<10}{verdict}"
        )
