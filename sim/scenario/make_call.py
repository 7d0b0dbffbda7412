"""Making the management calls of a scenario: through the closed interface, traced, with their outcome kept.

Models nothing: the host answers, or refuses.  Leaves out answers that are too long for a result.
"""

from __future__ import annotations

import json

from sim.core.structure import plain
from sim.core.trace import record
from sim.kernel.api import ApiError
from sim.kernel.host import Host
from sim.scenario.calls import CallSpec
from sim.scenario.result import CallRow

__all__ = ["ANSWER_CHARS_MAX", "make_call"]

SCENARIO_CALL = record("scenario.call", number=int, method=str, outcome=str)
"""A management call of the scenario's was made: "ok", or the fault that refused it."""

ANSWER_CHARS_MAX = 1 << 16
"""The longest answer that a result keeps, as JSON."""


def make_call(call: CallSpec, number: int, host: Host) -> CallRow:
    """Make call `number` of a scenario, whatever state the host is in, and return how it ended."""
    at_ns = host.sim.now
    outcome, message, answer = "ok", "", None
    try:
        answer = plain(host.call(call.method, call.arguments))
    except ApiError as error:
        outcome, message = error.code, error.message
    if answer is not None and len(json.dumps(answer)) > ANSWER_CHARS_MAX:
        answer, message = None, f"the answer has over {ANSWER_CHARS_MAX} characters and is left out"
    host.sim.trace.emit(SCENARIO_CALL, number, call.method, outcome)
    return CallRow(
        number=number,
        time_ns=at_ns,
        method=call.method,
        outcome=outcome,
        expected=call.expect,
        message=message,
        answer=answer,
    )
