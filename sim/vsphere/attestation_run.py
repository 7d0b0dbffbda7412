"""One attestation of one host: the steps from login to verdict.

Models: a finite procedure, one step a round trip: login, what the host says of itself, its keys, a credential for them
with a fresh secret to be opened by its TPM, event log, quote over a fresh nonce, appraisal.  The verifier gets the bytes
of the answers and nothing else.  A TPM that does not answer although the host has one, or that cannot open the
credential, is a failed attestation; a host without a usable TPM ends without a verdict.

Leaves out: retries, and proof that the connection leads to the host whose TPM answers (the EK's certificate names a
TPM, not a host).

Sources: VMware's vSphere Security guide, "Securing ESXi Hosts with Trusted Platform Module" and its troubleshooting
page (messages).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from attrs import field, frozen

from sim.attest.credential import Challenge, make_challenge
from sim.attest.engines import Case
from sim.attest.evidence import Evidence
from sim.attest.keys import name_of
from sim.attest.policy import AppraisalPolicy
from sim.attest.tpm_report import HostTpmAttestationReport
from sim.attest.verdict import ACCEPTED, NOT_ACCEPTED, AttestationError, ClockState, Reason
from sim.attest.verifier import Verifier
from sim.core.context import Sim
from sim.core.facts import fact
from sim.core.procedure import Procedure
from sim.core.rng import Stream
from sim.core.units import MS, US
from sim.errors import FormatError, VmksimError
from sim.vsphere.answers import (
    HostInfo,
    Identity,
    read_evidence,
    read_host_info,
    read_identity,
    read_image_database,
)
from sim.vsphere.attestation_report import attestation_report
from sim.vsphere.faults import HostConnectFault, InvalidArgument, MethodFault, NotFound
from sim.vsphere.hostd import HostAgent
from sim.vsphere.inventory import HostEntry

__all__ = ["NOT_APPLICABLE", "AttestationRun", "Outcome"]

NONCE_BYTES: Final = 32
NOT_APPLICABLE: Final = "N/A"
TPM_UNREACHABLE: Final = "TPM 2.0 device detected but a connection cannot be established."
INTERNAL_FAILURE: Final = "Internal failure"
NOT_ACTIVATED: Final = (
    "the host's TPM cannot open the credential made for its endorsement key and attestation key"
)
UNSEEN_REBOOT: Final = "the host says that it is in another boot, and was not seen to reboot"
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
    resumes: int = 0
    message: str = ""
    reasons: tuple[Reason, ...] = ()
    report: HostTpmAttestationReport = field(factory=HostTpmAttestationReport, repr=False)
    clock: ClockState | None = None
    tpm_name: bytes = field(default=b"", repr=False)
    """The name of the TPM's endorsement key; empty when there was nothing to appraise."""
    case: Case | None = field(default=None, repr=False)
    """What policy engines may look at; None when there was nothing to appraise."""

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
        chance: Stream,
        inventory: bool = False,
    ) -> None:
        self.agent = agent
        self.outcome: Outcome | None = None
        self._sim = sim
        self._policy = policy
        self._known = known
        self._credentials = credentials
        self._chance = chance
        self._inventory = inventory
        self._procedure: Procedure | None = None
        self._session = ""
        self._nonce = b""
        self._identity: Identity | None = None
        self._challenge: Challenge | None = None
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
        if self._claims_a_reboot_that_nobody_saw():
            self._fail("unseen_reboot", UNSEEN_REBOOT, f"boot {self._info.boot_id}")
            return
        assert self._procedure is not None
        for step in (
            self.ask_identity,
            self.challenge,
            self.ask_event_log,
            self.ask_quote,
            *([self.ask_image_database] if self._inventory else []),
            self.judge,
        ):
            self._procedure.next(step)

    def ask_identity(self) -> None:
        """Fetch the endorsement key with its certificate, and the attestation key."""
        self._ask("identity", "RetrieveTpmIdentity", {})

    def challenge(self) -> None:
        """Draw a secret, wrap it for the keys offered, and have the host's TPM open it."""
        if self.outcome is not None:
            return
        try:
            self._identity = read_identity(self._answers["identity"])
            self._is_the_known_tpm(self._identity)
            self._challenge = make_challenge(self._identity.ek_public, self._identity.ak_public, self._chance)
        except FormatError as error:
            self._fail("answers", INTERNAL_FAILURE, str(error))
        except AttestationError as error:
            self._fail(error.check, error.message, error.evidence)
        else:
            params = {
                "credential_blob": self._challenge.credential_blob,
                "encrypted_secret": self._challenge.encrypted_secret,
            }
            self._ask("activation", "ActivateTpmCredential", params, refused=NOT_ACTIVATED)

    def _claims_a_reboot_that_nobody_saw(self) -> bool:
        """Tell whether a host that was always in reach since it was accepted says that it is in another boot.

        Its TPM may have been reset alone, which looks to a verifier just as a reboot does.
        """
        known = self._known
        if known is None or known.last_accepted is None or known.away:
            return False
        return self._info.boot_id != known.last_accepted_boot_id

    def _is_the_known_tpm(self, identity: Identity) -> None:
        """Demand the TPM that was accepted first: a host whose TPM was exchanged is to be removed and added anew."""
        known = self._known
        if known is not None and known.tpm_name and name_of(identity.ek_public) != known.tpm_name:
            raise AttestationError("other_tpm", "the host has another TPM than the one that was accepted")

    def ask_event_log(self) -> None:
        """Fetch the event log."""
        self._ask("log", "RetrieveTpmEventLog", {})

    def ask_quote(self) -> None:
        """Draw a nonce and fetch a quote over it."""
        self._nonce = self._chance.bytes(NONCE_BYTES)
        params: dict[str, object] = {
            "nonce": self._nonce,
            "banks": list(self._policy.required_banks),
            "pcrs": sorted(self._policy.required_pcrs),
        }
        self._ask("quote", "RetrieveTpmQuote", params)

    def ask_image_database(self) -> None:
        """Fetch the inventory that policy engines want; a host without one is judged without."""
        if self.outcome is None:
            try:
                self._answers["database"] = self._call("FetchImageDatabase")
            except NotFound:
                self._answers["database"] = {"database": b""}

    def judge(self) -> None:
        """Appraise the bytes of the answers."""
        if self.outcome is not None:
            return
        self.agent.meter.charge(APPRAISAL_NS.value, what="vcenter")
        assert self._identity is not None
        assert self._challenge is not None
        answers = (self._answers[key] for key in ("activation", "log", "quote"))
        try:
            evidence = read_evidence(self._identity, self._challenge, *answers)
            database = read_image_database(self._answers.get("database", {"database": b""}))
        except FormatError as error:
            self._fail("answers", INTERNAL_FAILURE, str(error))
            return
        self.outcome = self._appraise(evidence, database, self._challenge)

    def log_out(self) -> None:
        """End the session."""
        self.agent.logout(self._session)

    def _appraise(self, evidence: Evidence, database: bytes, challenge: Challenge) -> Outcome:
        known = self._known
        last = known.last_accepted if known is not None else None
        rebooted, resumes = None, 0
        if known is not None and last is not None:
            rebooted = self._info.boot_id != known.last_accepted_boot_id
            resumes = self._info.resumes - known.last_accepted_resumes
        verdict = Verifier(self._policy).appraise(
            evidence, self._nonce, challenge, last=last, rebooted=rebooted, resumes=resumes
        )
        return Outcome(
            accepted=verdict.accepted,
            boot_id=self._info.boot_id,
            resumes=self._info.resumes,
            message=verdict.message,
            reasons=verdict.reasons,
            report=attestation_report(
                verdict.pcr_values,
                evidence.event_log,
                self._policy.manifest,
                reliable=verdict.replayed and not evidence.log_truncated,
            ),
            clock=verdict.clock,
            tpm_name=name_of(evidence.ek_public),
            case=Case(
                host=self.agent.name,
                evidence=evidence,
                verdict=verdict,
                image_database=database,
                now=self._sim.utc_now(),
            ),
        )

    def _ask(
        self, key: str, method: str, params: Mapping[str, object], *, refused: str = TPM_UNREACHABLE
    ) -> None:
        """Fetch one answer about the TPM; a fault ends the attestation as failed, and later steps do nothing.

        `refused` is the message where the host found fault with what it was sent.
        """
        if self.outcome is not None:
            return
        try:
            self._answers[key] = self._call(method, params)
        except MethodFault as fault:
            self._call("RetrieveHostInfo")  # raises if it is the host that is gone, and not its TPM
            message = refused if isinstance(fault, InvalidArgument) else TPM_UNREACHABLE
            code = "tpm" if message == TPM_UNREACHABLE else key
            self._fail(code, message, f"{method}: {fault.wire_name}: {fault}")

    def _fail(self, code: str, message: str, evidence: str) -> None:
        self.outcome = Outcome(
            accepted=False,
            boot_id=self._info.boot_id,
            message=message,
            reasons=(Reason(code=code, message=message, evidence=evidence),),
        )

    def _call(self, method: str, params: Mapping[str, object] | None = None) -> Any:
        self._travel()
        return self.agent.call(method, params, session=self._session)

    def _travel(self) -> None:
        self.agent.meter.charge(ROUND_TRIP_NS.value, what="network")
