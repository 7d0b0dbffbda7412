"""One attestation of one host: the steps from login to verdict.

Models: a finite procedure, one step a round trip: login, what the host says of itself, attestation key, event log,
quote over a fresh nonce, appraisal.  The verifier gets the bytes of the answers and nothing else.  A TPM that does
not answer although the host has one is a failed attestation; a host without a usable TPM ends without a verdict.

Leaves out: retries, and proof that the connection leads to the host whose TPM answers (the AK's certificate names a
TPM, not a host).

Sources: VMware's vSphere Security guide, "Securing ESXi Hosts with Trusted Platform Module" and its troubleshooting
page (messages).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from attrs import field, frozen

from sim.attest.evidence import Evidence
from sim.attest.policy import AppraisalPolicy
from sim.attest.tpm_report import HostTpmAttestationReport
from sim.attest.verdict import ACCEPTED, NOT_ACCEPTED, ClockState, Reason
from sim.attest.verifier import Verifier
from sim.core.context import Sim
from sim.core.facts import fact
from sim.core.procedure import Procedure
from sim.core.rng import Stream
from sim.core.units import MS, US
from sim.errors import FormatError, VmksimError
from sim.vsphere.answers import HostInfo, read_evidence, read_host_info
from sim.vsphere.attestation_report import attestation_report
from sim.vsphere.faults import HostConnectFault, MethodFault
from sim.vsphere.hostd import HostAgent
from sim.vsphere.inventory import HostEntry

__all__ = ["NOT_APPLICABLE", "AttestationRun", "Outcome"]

NONCE_BYTES: Final = 32
NOT_APPLICABLE: Final = "N/A"
TPM_UNREACHABLE: Final = "TPM 2.0 device detected but a connection cannot be established."
INTERNAL_FAILURE: Final = "Internal failure"
TPM_MISSING: Final = frozenset({"absent", "disabled"})

ROUND_TRIP_NS: Final = fact(
    "vcenter.round_trip_ns", 500 * US, unit="ns", source="management network within one site", kind="assumed"
)
APPRAISAL_NS: Final = fact(
    "vcenter.appraisal_ns", 20 * MS, unit="ns", source="verification of one host's evidence", kind="assumed"
)


@frozen(kw_only=True)
class Outcome:
    """How an attestation ended; `accepted` None means that there was nothing to attest."""

    accepted: bool | None
    boot_id: str
    message: str = ""
    reasons: tuple[Reason, ...] = ()
    report: HostTpmAttestationReport = field(factory=HostTpmAttestationReport, repr=False)
    clock: ClockState | None = None

    @property
    def status(self) -> str:
        """Return accepted, notAccepted or N/A."""
        if self.accepted is None:
            return NOT_APPLICABLE
        return ACCEPTED if self.accepted else NOT_ACCEPTED


class AttestationRun:
    """The state of one attestation between its steps; `outcome` is set by the last of them."""

    def __init__(
        self,
        sim: Sim,
        agent: HostAgent,
        policy: AppraisalPolicy,
        *,
        known: HostEntry | None,
        credentials: tuple[str, str],
        nonces: Stream,
    ) -> None:
        self.agent = agent
        self.outcome: Outcome | None = None
        self._sim = sim
        self._policy = policy
        self._known = known
        self._credentials = credentials
        self._nonces = nonces
        self._procedure: Procedure | None = None
        self._session = ""
        self._nonce = b""
        self._info = HostInfo(boot_id="", tpm_state="")
        self._answers: dict[str, Any] = {}

    def procedure(
        self, on_done: Callable[[], object], on_error: Callable[[VmksimError], object]
    ) -> Procedure:
        """Return the procedure of this run, not yet started."""
        procedure = Procedure(self._sim.engine, self.agent.meter, on_done, on_error)
        self._procedure = procedure
        return procedure.then(self.log_in).then(self.ask_who_it_is).then(self.log_out)

    def log_in(self) -> None:
        """Open a session at the host agent."""
        self._travel()
        self._session = self.agent.login(*self._credentials)

    def ask_who_it_is(self) -> None:
        """Fetch what the host says of itself, and decide whether there is something to attest."""
        try:
            self._info = read_host_info(self._call("RetrieveHostInfo"))
        except FormatError as error:
            raise HostConnectFault(self.agent.name, str(error)) from error
        if self._info.tpm_state in TPM_MISSING:
            self.outcome = Outcome(
                accepted=None, boot_id=self._info.boot_id, message=f"TPM {self._info.tpm_state}"
            )
            return
        assert self._procedure is not None
        for step in (self.ask_identity, self.ask_event_log, self.ask_quote, self.judge):
            self._procedure.next(step)

    def ask_identity(self) -> None:
        """Fetch the attestation key and its certificate."""
        self._ask("identity", "RetrieveTpmIdentity", {})

    def ask_event_log(self) -> None:
        """Fetch the event log."""
        self._ask("log", "RetrieveTpmEventLog", {})

    def ask_quote(self) -> None:
        """Draw a nonce and fetch a quote over it."""
        self._nonce = self._nonces.bytes(NONCE_BYTES)
        params: dict[str, object] = {
            "nonce": self._nonce,
            "banks": list(self._policy.required_banks),
            "pcrs": sorted(self._policy.required_pcrs),
        }
        self._ask("quote", "RetrieveTpmQuote", params)

    def judge(self) -> None:
        """Appraise the bytes of the answers."""
        if self.outcome is not None:
            return
        self.agent.meter.charge(APPRAISAL_NS.value, what="vcenter")
        try:
            evidence = read_evidence(self._answers["identity"], self._answers["log"], self._answers["quote"])
        except FormatError as error:
            self._fail("answers", INTERNAL_FAILURE, str(error))
            return
        self.outcome = self._appraise(evidence)

    def log_out(self) -> None:
        """End the session."""
        self.agent.logout(self._session)

    def _appraise(self, evidence: Evidence) -> Outcome:
        known = self._known
        last = known.last_accepted if known is not None else None
        rebooted = None
        if known is not None and last is not None:
            rebooted = self._info.boot_id != known.last_accepted_boot_id
        verdict = Verifier(self._policy).appraise(evidence, self._nonce, last=last, rebooted=rebooted)
        return Outcome(
            accepted=verdict.accepted,
            boot_id=self._info.boot_id,
            message=verdict.message,
            reasons=verdict.reasons,
            report=attestation_report(
                verdict.pcr_values,
                evidence.event_log,
                self._policy.manifest,
                reliable=verdict.replayed and not evidence.log_truncated,
            ),
            clock=verdict.clock,
        )

    def _ask(self, key: str, method: str, params: dict[str, object]) -> None:
        """Fetch one answer about the TPM; a fault ends the attestation as failed, and later steps do nothing."""
        if self.outcome is not None:
            return
        try:
            self._answers[key] = self._call(method, params)
        except MethodFault as fault:
            self._call("RetrieveHostInfo")  # raises if it is the host that is gone, and not its TPM
            self._fail("tpm", TPM_UNREACHABLE, f"{method}: {fault.wire_name}: {fault}")

    def _fail(self, code: str, message: str, evidence: str) -> None:
        self.outcome = Outcome(
            accepted=False,
            boot_id=self._info.boot_id,
            message=message,
            reasons=(Reason(code=code, message=message, evidence=evidence),),
        )

    def _call(self, method: str, params: dict[str, object] | None = None) -> Any:
        self._travel()
        return self.agent.call(method, params, session=self._session)

    def _travel(self) -> None:
        self.agent.meter.charge(ROUND_TRIP_NS.value, what="network")
