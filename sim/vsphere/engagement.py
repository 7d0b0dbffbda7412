"""What follows from a policy engine's decision: an alarm, quarantine, a key that is withheld.

Models: an engine that vCenter asks after every attestation, with the actions that its refusal has.  Quarantine means
that no virtual machine is placed on the host; a withheld key means that its encrypted virtual machines cannot start
there.  A refusal by one engine is not outvoted by another.

Leaves out: evacuation of the virtual machines that run on a quarantined host already.

Sources: VMware's vSphere Security guide (policy engines of third parties); vSphere Web Services API
(HostRuntimeInfo.inQuarantineMode, HostSystem.EnableCrypto, NoCompatibleHost).
"""

from __future__ import annotations

from enum import StrEnum

from attrs import field, frozen, validators

from sim.attest.engines import Case, Decision, Finding, PolicyEngine, SealEngine
from sim.attest.engines.seal import SealedKey
from sim.attest.verdict import AttestationError

__all__ = ["Action", "Engagement", "Judgement", "judge", "key_for", "refuse_all"]


class Action(StrEnum):
    """What vCenter does when an engine does not trust a host."""

    ALARM = "alarm"
    QUARANTINE = "quarantine"
    WITHHOLD_KEY = "withhold_key"


@frozen(kw_only=True)
class Engagement:
    """An engine and what its refusal leads to."""

    engine: PolicyEngine
    actions: tuple[Action, ...] = field(
        default=(Action.ALARM,),
        validator=[validators.min_len(1), validators.deep_iterable(validators.instance_of(Action))],
    )


@frozen(kw_only=True)
class Judgement:
    """What all engines together say of one host at one attestation."""

    decisions: tuple[Decision, ...] = ()
    actions: tuple[Action, ...] = ()

    @property
    def message(self) -> str:
        """Return the refusals in one line; empty when there is none."""
        return "; ".join(f"{each.engine}: {each.message}" for each in self.decisions if not each.trusted)


def judge(engagements: tuple[Engagement, ...], case: Case) -> Judgement:
    """Ask every engine; the actions are those of all that refuse, each once, in the order of `Action`.

    An engine that keeps states takes the state of the first accepted attestation of a host as the known one.
    """
    decisions: list[Decision] = []
    due: list[Action] = []
    for engagement in engagements:
        engine = engagement.engine
        if isinstance(engine, SealEngine) and case.verdict.accepted and not engine.knows(case.host):
            engine.enroll(case)
        decided = engine.decide(case)
        decisions.append(decided)
        if not decided.trusted:
            due.extend(engagement.actions)
    return Judgement(decisions=tuple(decisions), actions=tuple(action for action in Action if action in due))


def refuse_all(engagements: tuple[Engagement, ...], message: str, *, rule: str = "no_evidence") -> Judgement:
    """Return the judgement on a host of which there is no evidence, or none that is still true: nobody trusts it."""
    finding = Finding(rule=rule, message=message)
    return Judgement(
        decisions=tuple(Decision(engine=each.engine.name, findings=(finding,)) for each in engagements),
        actions=tuple(action for action in Action if any(action in each.actions for each in engagements)),
    )


def key_for(engagements: tuple[Engagement, ...], case: Case, judgement: Judgement) -> SealedKey | None:
    """Return the host's key wrapped for its TPM, or None: withheld, or no engine holds one."""
    if Action.WITHHOLD_KEY in judgement.actions:
        return None
    for engagement in engagements:
        if isinstance(engagement.engine, SealEngine):
            try:
                return engagement.engine.release(case)
            except AttestationError:
                return None
    return None
