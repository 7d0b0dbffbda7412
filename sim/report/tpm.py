"""Reports about the state of a TPM on its own: what it is, what it measured, what it keeps.

Models nothing.  Leaves out secrets; every value by its path is in `sim.tpm.state.state_lines`.
"""

from __future__ import annotations

from collections.abc import Iterator

from sim.report.table import Column, Section, Table
from sim.tpm.constants import TPM_ALG, TPM_RH, TPMA_NV
from sim.tpm.device import Tpm
from sim.tpm.eventlog import event_type_name, parse
from sim.tpm.words import handle_in_words

__all__ = ["tpm_sections"]

_NS_PER_MS = 1_000_000
DATA_CHARS_MAX = 60
_HIERARCHIES = (TPM_RH.OWNER, TPM_RH.ENDORSEMENT, TPM_RH.PLATFORM, TPM_RH.LOCKOUT)


def tpm_sections(tpm: Tpm) -> Iterator[Section]:
    """Yield the readable dump of a TPM."""
    yield _identity(tpm)
    yield _hierarchies(tpm)
    for bank, values in tpm.pcrs.values.items():
        rows = tuple((str(pcr), value.hex()) for pcr, value in enumerate(values))
        columns = (Column("PCR", right=True), Column("value"))
        yield Section(title=f"PCRs, {TPM_ALG(bank).name}", table=Table(columns=columns, rows=rows))
    yield _events(tpm)
    yield _objects(tpm)
    yield _indices(tpm)


def _identity(tpm: Tpm) -> Section:
    profile, time, now = tpm.profile, tpm.time, tpm.clock.now
    lines = (
        f"manufacturer {profile.manufacturer.strip()}, vendor string {''.join(profile.vendor_strings).strip()!r}",
        "started" if tpm.started else "waiting for Startup",
        (
            f"clock {time.clock_ms(now)} ms{'' if time.is_safe(now) else ' (not safe)'},"
            f" {time.reset_count} resets, {time.restart_count} restarts"
        ),
        f"last shutdown: {tpm.shutdown_type.name if tpm.shutdown_type is not None else 'none since the start'}",
        f"failed authorisations: {tpm.da.failed_tries} of {tpm.da.max_tries}",
        f"physical presence: {'asserted' if tpm.physical_presence else 'not asserted'}",
    )
    return Section(title="TPM 2.0", lines=lines)


def _hierarchies(tpm: Tpm) -> Section:
    rows = []
    for handle in _HIERARCHIES:
        hierarchy = tpm.hierarchies[handle]
        state = "on" if hierarchy.enabled else "off"
        rows.append(
            (handle.name, state, "set" if hierarchy.auth else "empty", hierarchy.policy.hex() or "none")
        )
    columns = (Column("HIERARCHY"), Column("STATE"), Column("AUTH"), Column("POLICY"))
    return Section(title="Hierarchies", table=Table(columns=columns, rows=tuple(rows)))


def _events(tpm: Tpm) -> Section:
    """Return what the event log beside the PCRs holds."""
    log = tpm.pcrs.log
    title = f"Event log, {log.size_bytes} bytes" + (", truncated" if log.truncated else "")
    events = parse(tpm.event_log).events
    if not events:
        return Section(title=title, lines=("none",))
    rows = tuple((str(each.pcr), event_type_name(each.type), _shown(each.data)) for each in events)
    columns = (Column("PCR", right=True), Column("TYPE"), Column("DATA"))
    return Section(title=title, table=Table(columns=columns, rows=rows))


def _shown(data: bytes) -> str:
    """Return the data of an event as text if it is one, else as hex, cut to one line."""
    text = data.decode("ascii", errors="replace")
    shown = text if text.isascii() and text.isprintable() else data.hex()
    return shown if len(shown) <= DATA_CHARS_MAX else shown[: DATA_CHARS_MAX - 3] + "..."


def _objects(tpm: Tpm) -> Section:
    rows = []
    for handle, loaded in sorted({**tpm.objects, **tpm.persistent}.items()):
        public = getattr(loaded, "public", None)
        kind = TPM_ALG(public.type).name if public is not None else "sequence"
        name = getattr(loaded, "name", b"").hex()
        rows.append((f"0x{handle:08x}", handle_in_words(handle).rsplit(" ", 1)[0], kind, name))
    if not rows:
        return Section(title="Objects", lines=("none",))
    columns = (Column("HANDLE"), Column("WHERE"), Column("TYPE"), Column("NAME"))
    return Section(title="Objects", table=Table(columns=columns, rows=tuple(rows)))


def _indices(tpm: Tpm) -> Section:
    rows = []
    for handle, index in sorted(tpm.nv.items()):
        attributes = index.public.attributes
        names = " ".join(
            str(flag.name) for flag in TPMA_NV if flag.name is not None and attributes & flag == flag
        )
        content = "not written" if index.content is None else f"{len(index.content)} bytes"
        rows.append((f"0x{handle:08x}", str(index.public.dataSize), content, names))
    if not rows:
        return Section(title="NV indices", lines=("none",))
    columns = (Column("INDEX"), Column("SIZE", right=True), Column("CONTENT"), Column("ATTRIBUTES"))
    return Section(title="NV indices", table=Table(columns=columns, rows=tuple(rows)))
