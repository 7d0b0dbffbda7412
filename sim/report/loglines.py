"""Log lines as a host prints them, from the `log.line` records of a trace.

Models: the line form of vmkernel.log up to release 7 (`<ISO time>Z cpu<N>:<world>)<text>`) for the VMkernel, and
time, source and text for firmware, boot loader and management agents, which have logs of their own.

Leaves out: log levels, rotation and the 8.0 form.  Source: public vmkernel.log samples of ESXi 6 and 7.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from sim.core.trace import ColumnarSink

__all__ = ["log_lines"]

_KERNEL = "vmkernel"


def log_lines(sink: ColumnarSink, epoch: str) -> Iterator[str]:
    """Yield one line per `log.line` record, stamped with calendar time since `epoch` (ISO), to the millisecond."""
    start = datetime.fromisoformat(epoch).astimezone(UTC)
    for row in sink.rows("log.line"):
        stamp = _stamp(start, row["time_ns"])
        if row["source"] == _KERNEL:
            yield f"{stamp} cpu{row['cpu']}:{row['world']}){row['text']}"
        else:
            yield f"{stamp} {row['source']}: {row['text']}"


def _stamp(start: datetime, time_ns: int) -> str:
    moment = start + timedelta(milliseconds=time_ns // 1_000_000)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
