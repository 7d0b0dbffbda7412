"""Fuzzed TCG event logs: each is replayed or refused, none raises anything else, and none takes much memory.

Run `python tests/campaigns/log_mutants.py` (1,000,000 mutants) or add `--count N`; `--jobs N` uses N processes.  Mutants are made of the
logs of simulated boots in several shapes (starts of PCR 0, dynamic launch, Secure Boot off, one bank, the older SHA-1
form, a full log) and of the real logs in the folder of vectors, when it is there.  What a reader accepts must be all
there is: written again, the events give the same bytes.  Accepted logs are replayed, surveyed, and their events read as
ESXi's; one in eight is judged whole besides, by the verifier and by the judge of files, with a genuine quote over the
values to which it leads.  The last lines count what was replayed, what was refused and why, and name the peak memory of a process; the
exit status is 0 only if there was no finding and no process passed 100 MB.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import re
import resource
import struct
import sys
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from sim.attest import esx_events, launch
from sim.attest.survey import survey
from sim.errors import FormatError, VerificationError
from sim.image.manifest import ReferenceManifest
from sim.tpm.constants import HASH_BYTES
from sim.tpm.eventlog import EV, EventLog, EventLogWriter, event_record, parse, replay

sys.path.insert(0, str(Path(__file__).resolve().parent))

from log_mutations import Mutator, split_log
from log_witness import BANKS, Witness, make_witness

COUNT = 1_000_000
CHUNK = 2_000
WHOLE_EVERY = 8
"""One in so many mutants is judged by the whole verifier, which takes ten times as long as reading it."""
RSS_BYTES_MAX = 100 * 1000 * 1000
SHOWN = 5
REASONS_SHOWN = 30
SHA1, SHA256 = 0x04, 0x0B
VECTORS = Path(__file__).resolve().parents[3] / "shared" / "vectors" / "eventlogs"

Subjects = Mapping[str, bytes]


def main(arguments: list[str] | None = None) -> int:
    """Run the campaign, print its counts, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="processes; 0 stays in this one")
    options = parser.parse_args(arguments)
    outcomes: Counter[str] = Counter()
    findings: list[str] = []
    peak = 0
    for counts, found, rss in results(options.count, options.seed, options.jobs):
        outcomes += counts
        findings += found[:SHOWN]
        peak = max(peak, rss)
    return report(outcomes, findings, peak, judged_apart=options.jobs > 0)


def report(outcomes: Counter[str], findings: Sequence[str], peak: int, *, judged_apart: bool) -> int:
    """Print the counts and return the exit status; memory counts where processes did nothing else."""
    refused = {reason: count for reason, count in outcomes.items() if reason.startswith("refused: ")}
    for reason, count in sorted(refused.items(), key=lambda item: -item[1])[:REASONS_SHOWN]:
        print(f"  {count:8} {reason}")
    if len(refused) > REASONS_SHOWN:
        rest = sorted(refused.values())[: len(refused) - REASONS_SHOWN]
        print(f"  {sum(rest):8} refused: {len(rest)} other reasons")
    for finding in findings[:SHOWN]:
        print(f"  FINDING {finding}")
    bad = outcomes["finding"] + (judged_apart and peak >= RSS_BYTES_MAX)
    print(
        f"total: {sum(outcomes.values())} mutants, {outcomes['replayed']} replayed, {sum(refused.values())} refused, "
        f"{outcomes['unchanged']} unchanged, {outcomes['finding']} findings"
    )
    print(f"peak memory of a process: {peak / 1e6:.1f} MB, {'FAILED' if bad else 'nothing found'}")
    return 1 if bad else 0


def results(count: int, seed: int, jobs: int) -> Iterator[tuple[Counter[str], list[str], int]]:
    """Yield counts, findings and peak memory of each chunk; boots run in a process of their own."""
    firsts = range(0, count, CHUNK)
    if jobs == 0:
        subjects, witness = all_subjects(), the_witness()
        for first in firsts:
            yield chunk(subjects, witness, seed, first, min(CHUNK, count - first))
        return
    fresh = multiprocessing.get_context("spawn")  # a copy of this process would begin with its memory
    with ProcessPoolExecutor(1, mp_context=fresh) as maker:
        subjects, witness = maker.submit(all_subjects).result(), maker.submit(the_witness).result()
    with ProcessPoolExecutor(jobs, mp_context=fresh) as pool:
        waiting = [
            pool.submit(chunk, subjects, witness, seed, first, min(CHUNK, count - first)) for first in firsts
        ]
        for each in waiting:
            yield each.result()


def chunk(
    subjects: Subjects, witness: Witness, seed: int, first: int, count: int
) -> tuple[Counter[str], list[str], int]:
    """Judge some mutants, the same ones in any process."""
    mutator = Mutator(
        random.Random(f"{seed}/{first}"), {name: split_log(data) for name, data in subjects.items()}
    )
    names = sorted(subjects)
    outcomes: Counter[str] = Counter()
    findings = []
    for number in range(first, first + count):
        name = names[number % len(names)]
        mutant, what = mutator.mutant(name)
        if mutant == subjects[name]:
            outcomes["unchanged"] += 1
            continue
        whole = witness if number // len(names) % WHOLE_EVERY == 0 else None
        banks = BANK_SETS[number % len(BANK_SETS)]
        outcome = judge(
            mutant, every_bank=bool(number & 1), padded=bool(number & 2), whole=whole, banks=banks
        )
        if outcome.startswith("finding"):
            findings.append(f"mutant {number} of {name} ({what}): {outcome[9:]}")
            outcome = "finding"
        outcomes[outcome] += 1
    return outcomes, findings, peak_rss_bytes()


BANK_SETS: Sequence[tuple[int, ...]] = ((SHA256,), (SHA1, SHA256), (SHA1,), BANKS[2:3], BANKS[3:4], BANKS[:3])
"""The banks over which the quotes go: also those that a log does not have, and one that nobody can replay."""


def judge(
    data: bytes,
    *,
    every_bank: bool,
    padded: bool,
    whole: Witness | None = None,
    banks: tuple[int, ...] = (SHA256,),
) -> str:
    """Return `replayed`, `refused: why` or `finding: what`; `whole` has the log judged by the whole verifier too."""
    try:
        log = parse(data, every_bank=every_bank, allow_padding=padded)
        replay(log)
        survey(log)
        read_events(log)
        if whole is not None:
            judge_whole(whole, log, data, banks)
    except FormatError as error:
        return f"refused: {re.sub('0x[0-9a-f]+|[0-9]+', '#', error.message)}"
    except Exception:
        return f"finding: {traceback.format_exc(limit=-3)}"
    again = written(log, data)
    rest = data[len(again) :]
    if not data.startswith(again) or (rest and not (padded and is_padding(rest))):
        return "finding: the events of an accepted log are not all of its bytes"
    return "replayed"


def judge_whole(witness: Witness, log: EventLog, data: bytes, banks: tuple[int, ...]) -> None:
    """Have the verifier and the judge of files say something of the log; what they raise is a finding."""
    evidence = witness.evidence(log, data, banks)
    for verdict in (
        witness.appraise(evidence),
        witness.appraise_files(evidence, with_values=True),
        witness.appraise_files(evidence, with_values=False),
    ):
        assert verdict.accepted != bool(verdict.reasons), "refused without a reason, or accepted with one"


def read_events(log: EventLog) -> None:
    """Read the events as ESXi's and as those of a launch; what refuses one of them has judged the log, not broken."""
    try:
        for measurement in esx_events.read_measurements(log.events):
            esx_events.check_tag_text(measurement)
        launch.check_launch_events(log.events)
        for event in log.events:
            esx_events.check_event_belongs(event)
    except (FormatError, VerificationError):
        return


def written(log: EventLog, data: bytes) -> bytes:
    """Write the events of a log again, behind the Spec ID record of the original, if it has one."""
    if log.spec_id is None:
        writer = EventLogWriter((SHA1,), crypto_agile=False)
        for event in log.events:
            writer.append(event.pcr, event.type, event.digests, event.data)
        return writer.to_bytes()
    (size,) = struct.unpack_from("<I", data, 28)
    records = (event_record(event.pcr, event.type, event.digests, event.data) for event in log.events)
    return data[: 32 + size] + b"".join(records)


def is_padding(rest: bytes) -> bool:
    """Tell whether all bytes are zero, or all 0xFF."""
    return rest in (bytes(len(rest)), b"\xff" * len(rest))


def peak_rss_bytes() -> int:
    """Return the most memory that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def the_witness() -> Witness:
    """Return the machine that shows the mutants, and a verifier for which nothing is published."""
    return make_witness(ReferenceManifest())


def all_subjects() -> dict[str, bytes]:
    """Return the logs that mutants are made of, by name."""
    return {**boot_logs(), **real_logs()}


def real_logs() -> dict[str, bytes]:
    """Return the good logs of the folder of vectors; nothing when it is absent."""
    table = VECTORS / "expected.json"
    if not table.is_file():
        return {}
    expected = json.loads(table.read_text(encoding="utf-8"))
    good = [name for name, each in expected.items() if each["must"] == "accept"]
    return {f"real/{name}": (VECTORS / name).read_bytes() for name in good}


def boot_logs() -> dict[str, bytes]:
    """Return the logs of boots of small hosts, and other forms of the first."""
    from sim.boot.bootinfo import StartupMode

    found = {f"boot/{mode.value}": boot_log(startup=mode) for mode in StartupMode}
    found["boot/launch"] = boot_log(launch=True)
    found["boot/insecure"] = boot_log(secure_boot=False)
    found["boot/sha1-form"] = other_form(found["boot/locality3"], EventLogWriter((SHA1,), crypto_agile=False))
    found["boot/sha256-alone"] = other_form(found["boot/hcrtm"], EventLogWriter((SHA256,)))
    found |= {f"boot/nothing-{len(banks)}": only_a_start(banks) for banks in ((SHA1,), (SHA1, SHA256))}
    full = EventLogWriter((SHA1, SHA256), capacity_bytes=2000)
    found["boot/full"] = other_form(found["boot/locality0"], full)
    return found


def only_a_start(banks: tuple[int, ...]) -> bytes:
    """Return a log without an event that extends anything."""
    writer = EventLogWriter(banks)
    writer.startup_locality(3)
    return writer.to_bytes()


def boot_log(*, startup: str = "locality0", launch: bool = False, secure_boot: bool = True) -> bytes:
    """Boot a small host and return the log that its firmware and loader wrote."""
    import attrs

    from sim.boot.bootinfo import StartupMode
    from sim.hw.spec import FirmwareSpec, HostSpec
    from sim.scenario.build import build
    from sim.scenario.spec import ImageSpec, Scenario

    firmware = FirmwareSpec(txt_enabled=launch, secure_boot=secure_boot)
    scenario = Scenario(
        host=HostSpec(firmware=firmware),
        image=ImageSpec(modules=2, module_size_bytes=1024),
        vms=(),
        options={"enableTboot": launch},
    )
    machinery = build(scenario, 1)
    machinery.host.policy = attrs.evolve(machinery.host.policy, startup=StartupMode(startup))
    machinery.host.power_on()
    machinery.sim.engine.run()
    assert machinery.host.boot is not None, machinery.host.failure
    assert machinery.host.boot.drtm == launch
    return machinery.host.boot.event_log


def other_form(data: bytes, writer: EventLogWriter) -> bytes:
    """Write the events of a log in another form."""
    for event in parse(data).events:
        digests = {bank: event.digests.get(bank, bytes(HASH_BYTES[bank])) for bank in writer.banks}
        if event.type != EV.NO_ACTION or len(event.data) > 0:
            writer.append(event.pcr, event.type, digests, event.data)
    return writer.to_bytes()


if __name__ == "__main__":
    sys.exit(main())
