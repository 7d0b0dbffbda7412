"""The discrete-event engine: SimPy with integer nanoseconds, callbacks, re-armable timers and pickling.

Models simulated time only.  Long-lived activities are callbacks on plain objects: such a simulation pickles at any
event and continues in another process.  SimPy processes (generators) still work, for users' workloads and finite
procedures, but a checkpoint refuses them, because Python cannot pickle a generator.

Leaves out priorities and real time: events due at the same nanosecond run in the order in which they entered the
queue.  Source: SimPy 4.1, "SimPy basics" and `simpy.core`.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Any

import simpy

from sim.errors import CheckpointError, SimBug

__all__ = ["NEVER", "Engine", "EngineLimits", "Timer"]

NEVER = -1
"""The due time of a timer that is not armed."""

TIME_NS_MAX = 2**63 - 1
"""The last nanosecond (292 years): later times are a bug, not a wrap-around."""

_NORMAL = 1  # SimPy's own priority of ordinary events

Callback = Callable[..., object]


class EngineLimits:
    """Limits of one run: how many events at all, and how many at one instant (a livelock)."""

    __slots__ = ("events_max", "same_time_events_max")

    def __init__(self, events_max: int = 10**12, same_time_events_max: int = 5_000_000) -> None:
        self.events_max = events_max
        self.same_time_events_max = same_time_events_max


class Timer:
    """A re-armable event: it calls `callback()` at `due_ns`, and can be armed again and again without a new object.

    Arming moves the due time, earlier or later; a queue entry that is overtaken is recognised and dropped when its
    time comes.
    """

    __slots__ = ("_ok", "_queued_ns", "callback", "callbacks", "due_ns", "engine")

    def __init__(self, engine: Engine, callback: Callback) -> None:
        self.engine = engine
        self.callback = callback
        self.due_ns = NEVER
        self._queued_ns = NEVER
        self._ok = True
        self.callbacks: Any = _TIMER_CALLBACKS

    @property
    def armed(self) -> bool:
        """Whether a due time is set."""
        return self.due_ns != NEVER

    def arm(self, when_ns: int) -> None:
        """Call back at `when_ns` (absolute), instead of any time set before."""
        engine = self.engine
        if type(when_ns) is not int or not engine._now <= when_ns <= TIME_NS_MAX:
            raise _wrong_time("timer armed for", when_ns, engine.now)
        self.due_ns = when_ns
        queued_ns = self._queued_ns
        if queued_ns == NEVER or queued_ns > when_ns:
            self._queued_ns = when_ns
            heappush(engine._queue, (when_ns, _NORMAL, next(engine._eid), self))  # type: ignore[misc]

    def cancel(self) -> None:
        """Forget the due time; nothing happens when it was not armed."""
        self.due_ns = NEVER


def _fire_timer(timer: Timer) -> None:
    engine = timer.engine
    now = engine._now
    timer.callbacks = _TIMER_CALLBACKS
    if timer._queued_ns == now:
        timer._queued_ns = NEVER
    due_ns = timer.due_ns
    if due_ns == now:
        timer.due_ns = NEVER
        timer.callback()
    elif due_ns > now and timer._queued_ns == NEVER:
        timer._queued_ns = due_ns
        heappush(engine._queue, (due_ns, _NORMAL, next(engine._eid), timer))  # type: ignore[misc]


_TIMER_CALLBACKS = (_fire_timer,)


class _Call:
    """A callback that happens once."""

    __slots__ = ("_ok", "arguments", "callback", "callbacks")

    def __init__(self, callback: Callback, arguments: tuple[object, ...]) -> None:
        self.callback = callback
        self.arguments = arguments
        self._ok = True
        self.callbacks: Any = _CALL_CALLBACKS


def _fire_call(call: _Call) -> None:
    call.callback(*call.arguments)


_CALL_CALLBACKS = (_fire_call,)


def _fire(event: Any) -> None:
    """Process an event as `simpy.Environment.step` does: a failure that nobody took is raised."""
    callbacks, event.callbacks = event.callbacks, None
    for callback in callbacks:
        callback(event)
    if not event._ok and not hasattr(event, "_defused"):
        failure = type(event._value)(*event._value.args)
        failure.__cause__ = event._value
        raise failure


class Engine(simpy.Environment):
    """Simulated time and its event queue.

    `now` is an int in nanoseconds.  `at`, `after` and `timer` take callbacks, which must be bound methods or module
    functions where the simulation is to be pickled.
    """

    def __init__(self, *, start_ns: int = 0, limits: EngineLimits | None = None) -> None:
        if type(start_ns) is not int or not 0 <= start_ns <= TIME_NS_MAX:
            raise _wrong_time("time begins at", start_ns, 0)
        super().__init__(initial_time=start_ns)
        self.limits = limits if limits is not None else EngineLimits()
        self.events_done = 0

    @property
    def now(self) -> int:
        """Simulated time, ns."""
        return self._now  # type: ignore[return-value]

    def at(self, when_ns: int, callback: Callback, *arguments: object) -> None:
        """Call `callback(*arguments)` once at `when_ns` (absolute, ns)."""
        if type(when_ns) is not int or not self._now <= when_ns <= TIME_NS_MAX:
            raise _wrong_time("event scheduled for", when_ns, self.now)
        heappush(self._queue, (when_ns, _NORMAL, next(self._eid), _Call(callback, arguments)))  # type: ignore[misc]

    def after(self, delay_ns: int, callback: Callback, *arguments: object) -> None:
        """Call `callback(*arguments)` once, `delay_ns` from now."""
        self.at(self.now + delay_ns, callback, *arguments)

    def schedule(self, event: simpy.Event, priority: Any = _NORMAL, delay: Any = 0) -> None:
        """Queue an event of SimPy's own, `delay` from now: the way of its timeouts and processes."""
        if type(delay) is not int or not 0 <= delay <= TIME_NS_MAX - self.now:
            raise _wrong_time("SimPy event scheduled with a delay of", delay, self.now)
        super().schedule(event, priority, delay)

    def timer(self, callback: Callback) -> Timer:
        """Make a re-armable timer that calls `callback()`."""
        return Timer(self, callback)

    @property
    def idle(self) -> bool:
        """Whether the queue is empty."""
        return not self._queue

    def run(self, until: Any = None) -> None:  # noqa: PLR0912 - the loop of everything, written out flat
        """Run every event due up to and including `until` (absolute ns; None: until the queue is empty).

        The loop does what `simpy.Environment.step` does, without a call for each event.

        Errors: `SimBug` when a limit of `EngineLimits` is passed, or for a time that is past or beyond the last one.
        """
        end_ns: int = TIME_NS_MAX if until is None else until
        if type(end_ns) is not int or not self._now <= end_ns <= TIME_NS_MAX:
            raise _wrong_time("cannot run to", end_ns, self.now)
        queue, pop = self._queue, heappop
        same_time_max = self.limits.same_time_events_max
        budget = self.limits.events_max - self.events_done
        done = same_time = 0
        last_ns: float = NEVER
        try:
            while True:  # a condition here would keep CPython 3.11 from adapting the loop while it runs
                if not queue or (when_ns := queue[0][0]) > end_ns:
                    break
                if when_ns == last_ns:
                    same_time += 1
                    if same_time > same_time_max:
                        raise SimBug(f"livelock: over {same_time_max} events at {when_ns} ns")
                else:
                    last_ns = when_ns
                    same_time = 0
                event: Any = pop(queue)[3]
                self._now = when_ns
                if event.__class__ is Timer:  # nearly all are: what `_fire_timer` does, written out
                    if event._queued_ns == when_ns:
                        event._queued_ns = NEVER
                    due_ns = event.due_ns
                    if due_ns == when_ns:
                        event.due_ns = NEVER
                        callback = event.callback
                        callback()
                    elif due_ns > when_ns and event._queued_ns == NEVER:
                        event._queued_ns = due_ns
                        heappush(queue, (due_ns, _NORMAL, next(self._eid), event))  # type: ignore[misc]
                else:
                    _fire(event)
                done += 1
                if done > budget:
                    raise SimBug(f"over {self.limits.events_max} events by {when_ns} ns")
        finally:
            self.events_done += done
        if until is not None:
            self._now = end_ns

    def __getstate__(self) -> dict[str, object]:
        for entry in self._queue:
            if not isinstance(entry[3], (Timer, _Call)):
                raise CheckpointError(
                    "a generator process is waiting in the queue, and Python cannot pickle a generator: "
                    "write the activity as callbacks, or take the checkpoint after it has ended"
                )
        next_id = next(self._eid)
        self._eid = count(next_id)
        return {
            "now": self._now,
            "queue": list(self._queue),
            "next_id": next_id,
            "limits": (self.limits.events_max, self.limits.same_time_events_max),
            "events_done": self.events_done,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__init__(initial_time=state["now"])
        self._queue = state["queue"]
        self._eid = count(state["next_id"])
        self.limits = EngineLimits(*state["limits"])
        self.events_done = state["events_done"]


def _wrong_time(what: str, when_ns: object, now_ns: int) -> SimBug:
    """Return the error for a time that is no integer (floats drift), has passed, or is beyond the last nanosecond."""
    if type(when_ns) is int and when_ns < now_ns:
        return SimBug(f"{what} {when_ns} ns, which is before now ({now_ns} ns)")
    return SimBug(f"{what} {when_ns!r} ns, which is no integer from {now_ns} to {TIME_NS_MAX}")
