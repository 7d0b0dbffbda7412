"""vCenter: takes hosts into its inventory and attests them when they are added, reconnected or rebooted.

Models: login at the host agent, a fresh nonce, attestation key, quote and event log fetched over the management API,
the appraisal of nothing but these bytes, and what follows from the verdict: `tpmAttestation`, the PCR values and
event details, the attestation alarm and its event.  Policy engines of third
parties are asked after the verdict, and what they refuse leads to an alarm, to quarantine or to a key that is withheld.  A host without a TPM that is switched on gets no verdict (N/A).

Leaves out: clusters, placement by load and every other duty of vCenter; renewal of verdicts by itself: a verdict stands until
somebody attests the host again.  It carries its time and its boot, and `check_freshness` tells whether it still holds.

Sources: VMware's vSphere Security guide (attestation on add, reboot and reconnect; Secure Boot is a requirement);
vSphere Web Services API (HostTpmAttestationInfo); the message of an unreachable TPM as VMware's guide prints it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from attrs import evolve

from sim.attest.engines.seal import SealedKey
from sim.attest.policy import AppraisalPolicy
from sim.core.context import Sim
from sim.core.procedure import Procedure
from sim.core.trace import record
from sim.errors import FormatError, VmksimError
from sim.image.manifest import ReferenceManifest
from sim.vsphere.answers import read_host_info
from sim.vsphere.attestation_run import AttestationRun, Outcome
from sim.vsphere.engagement import Action, Engagement, Judgement, judge, key_for, refuse_all
from sim.vsphere.faults import AlreadyConnected, MethodFault, NoCompatibleHost, NotFound
from sim.vsphere.freshness import why_stale
from sim.vsphere.hostd import VPXUSER, HostAgent
from sim.vsphere.inventory import (
    ALARM_NAME,
    ATTESTATION_FAILED_EVENT,
    GRAY,
    GREEN,
    POLICY_ALARM_NAME,
    POLICY_FAILED_EVENT,
    RED,
    HostEntry,
    TpmAttestationInfo,
    VcEvent,
)

__all__ = ["VCenter"]

VC_EVENT = record("vcenter.event", type=str, host=str, message=str)
POLICY_DECISION = record("vcenter.policy", host=str, engine=str, trusted=int, message=str)
ATTESTED = record("vcenter.attestation", host=str, status=str, message=str)

EVENTS_MAX: Final = 1_000_000
"""The most events that are kept; later ones are only traced."""

OnDone = Callable[[HostEntry], object]
OnError = Callable[[VmksimError], object]


class VCenter:
    """The inventory of hosts, and who attests them.

    `vendor_roots` are the TPM vendors' certificates (DER) and `manifest` the published software; `policy` sets the
    other demands, its own roots, manifest and time being replaced.  A verdict older than `verdict_age_ns_max` is stale.
    """

    def __init__(
        self,
        sim: Sim,
        *,
        vendor_roots: tuple[bytes, ...],
        manifest: ReferenceManifest,
        policy: AppraisalPolicy | None = None,
        engagements: tuple[Engagement, ...] = (),
        verdict_age_ns_max: int | None = None,
        credentials: tuple[str, str] = VPXUSER,
    ) -> None:
        if policy is None:
            policy = AppraisalPolicy(vendor_roots=vendor_roots, manifest=manifest, now=sim.epoch)
        self.policy = evolve(policy, vendor_roots=vendor_roots, manifest=manifest)
        self.engagements = engagements
        self.verdict_age_ns_max = verdict_age_ns_max
        self.events: list[VcEvent] = []
        self._sim = sim
        self._credentials = credentials
        self._rng = sim.rng.child("vcenter")  # kept: each call of `child` would begin the nonces anew
        self._hosts: dict[str, HostEntry] = {}
        self._agents: dict[str, HostAgent] = {}
        self._running: dict[str, Procedure] = {}

    # ------------------------------------------------------------ what others ask

    def host(self, name: str) -> HostEntry:
        """Return the entry of a host; NotFound when it is not in the inventory."""
        if name not in self._hosts:
            raise NotFound
        return self._hosts[name]

    def hosts(self) -> tuple[HostEntry, ...]:
        """Return all entries, in the order in which the hosts were added."""
        return tuple(self._hosts.values())

    def add_host(
        self, agent: HostAgent, *, on_done: OnDone | None = None, on_error: OnError | None = None
    ) -> Procedure:
        """Start taking a host into the inventory: log in, attest it, record the verdict.

        Returns the running procedure; a newer one on the same host stops it without a word.  A host that is not
        accepted is in the inventory all the same; one that cannot be reached or logged in to is not, and `on_error`
        gets the fault.
        """
        if agent.name in self._hosts:
            raise AlreadyConnected(agent.name)
        return self._attest(agent, on_done, on_error)

    def reconnect_host(
        self, name: str, *, on_done: OnDone | None = None, on_error: OnError | None = None
    ) -> Procedure:
        """Start connecting to a known host again, which attests it anew."""
        self.host(name)
        return self._attest(self._agents[name], on_done, on_error)

    def on_host_rebooted(
        self, name: str, *, on_done: OnDone | None = None, on_error: OnError | None = None
    ) -> Procedure:
        """Start attesting a known host again because it has booted; its sessions are gone."""
        self._hosts[name] = evolve(self.host(name), away=True)
        self._agents[name].restart()
        return self._attest(self._agents[name], on_done, on_error)

    def check_freshness(self, name: str) -> str:
        """Ask a host which boot it is in, and return why the verdict on it is stale; "" when it holds.

        To policy engines a stale verdict is a refusal by all of them, with its actions, until the next attestation.
        """
        agent = self._agents[self.host(name).name]
        try:
            session = agent.login(*self._credentials)
            try:
                info = read_host_info(agent.call("RetrieveHostInfo", session=session))
            finally:
                agent.logout(session)
        except (MethodFault, FormatError) as error:
            self.lose(agent, error)
            return str(error)
        entry = self._hosts[name]
        stale = why_stale(entry, info.boot_id, self._sim.utc_now(), self.verdict_age_ns_max)
        if stale and stale != entry.stale:
            self._hosts[name] = evolve(entry, stale=stale)
            self._sim.log("vcenter", f"{name}: TPM attestation is stale: {stale}")
            self._act(name, refuse_all(self.engagements, stale, rule="stale"))
        return stale

    def disconnect_host(self, name: str) -> None:
        """Mark a host as disconnected; its last verdict stays, with its time."""
        self._hosts[name] = evolve(self.host(name), connection_state="disconnected", away=True)
        self._running[name].stop()
        self._post("HostDisconnectedEvent", name, f"Disconnected from {name}")

    def remove_host(self, name: str) -> None:
        """Take a host out of the inventory; what was known of its TPM's clock is forgotten with it."""
        self.host(name)
        self._running.pop(name).stop()
        del self._hosts[name], self._agents[name]
        self._post("HostRemovedEvent", name, f"Removed host {name}")

    # ------------------------------------------------------------ the way of an attestation

    def _attest(self, agent: HostAgent, on_done: OnDone | None, on_error: OnError | None) -> Procedure:
        name = agent.name
        if name in self._running:
            self._running[name].stop()
        policy = evolve(self.policy, now=self._sim.utc_now())
        run = AttestationRun(
            self._sim,
            agent,
            policy,
            known=self._hosts.get(name),
            credentials=self._credentials,
            chance=self._rng.stream(f"attestation/{name}"),
            inventory=bool(self.engagements),
        )
        ending = _Ending(self, run, on_done, on_error)
        procedure = run.procedure(ending.done, ending.failed)
        self._running[name] = procedure
        return procedure.start()

    def record(self, agent: HostAgent, outcome: Outcome) -> HostEntry:
        """Write the outcome of an attestation into the inventory, with its events and its alarm."""
        name = agent.name
        known = self._hosts.get(name)
        entry = known if known is not None else HostEntry(name=name)
        entry = evolve(
            entry,
            connection_state="connected",
            boot_id=outcome.boot_id,
            report=outcome.report,
            reasons=outcome.reasons,
            case=outcome.case,
            tpm_attestation=self._info(outcome),
            stale="",
        )
        if outcome.clock is not None and outcome.accepted:
            entry = evolve(
                entry,
                last_accepted=outcome.clock,
                last_accepted_boot_id=outcome.boot_id,
                last_accepted_resumes=outcome.resumes,
                tpm_name=outcome.tpm_name,
                away=False,
            )
        self._agents[name] = agent
        self._hosts[name] = entry
        if known is None:
            self._post("HostAddedEvent", name, f"Added host {name}")
        self._post("HostConnectedEvent", name, f"Established a connection to {name}")
        self._sim.trace.emit(ATTESTED, name, outcome.status, outcome.message)
        words = f"{outcome.status}: {outcome.message}" if outcome.message else outcome.status
        self._sim.log("vcenter", f"{name}: TPM attestation {words}")
        if outcome.accepted is False:
            self._post(
                ATTESTATION_FAILED_EVENT, name, f"TPM attestation failed for host {name}: {outcome.message}"
            )
        gone = outcome.accepted is None and bool(entry.tpm_name)
        self._set_alarm(name, RED if gone else {True: GREEN, False: RED, None: GRAY}[outcome.accepted])
        if self.engagements:
            self._enforce(agent, outcome)
        return self._hosts[name]

    def place_vm(self, spec: Mapping[str, object]) -> str:
        """Power a virtual machine on, on the first connected host that may take it, and return that host's name.

        `spec` is the table of a `VmSpec`.  Where policy engines are engaged, the verdict on the host must still hold.
        Errors: `NoCompatibleHost` says of each host why not.
        """
        refusals: list[tuple[str, str]] = []
        for name in tuple(self._hosts):
            if self.engagements and self._hosts[name].connection_state == "connected":
                self.check_freshness(name)
            entry = self._hosts[name]
            if entry.connection_state != "connected" or entry.quarantined:
                refusals.append((name, "in quarantine" if entry.quarantined else entry.connection_state))
                continue
            agent = self._agents[name]
            session = agent.login(*self._credentials)
            try:
                agent.call("PowerOnVM_Task", {"spec": dict(spec)}, session=session)
            except MethodFault as fault:
                refusals.append((name, str(fault)))
                continue
            finally:
                agent.logout(session)
            return name
        raise NoCompatibleHost(tuple(refusals))

    def _enforce(self, agent: HostAgent, outcome: Outcome) -> None:
        """Ask the policy engines about a host, and act on what they say."""
        name = agent.name
        judgement, key = Judgement(), None
        if outcome.case is not None:
            judgement = judge(self.engagements, outcome.case)
            key = key_for(self.engagements, outcome.case, judgement)
        else:
            judgement = refuse_all(self.engagements, outcome.message)
        self._act(name, judgement)
        if key is not None:
            self._hand_over(agent, key)

    def _act(self, name: str, judgement: Judgement) -> None:
        """Do what the policy engines' decisions on a host lead to, and say so."""
        self._hosts[name] = evolve(
            self._hosts[name],
            decisions=judgement.decisions,
            quarantined=Action.QUARANTINE in judgement.actions,
            key_withheld=Action.WITHHOLD_KEY in judgement.actions,
        )
        for decided in judgement.decisions:
            self._sim.trace.emit(POLICY_DECISION, name, decided.engine, int(decided.trusted), decided.message)
        if judgement.message:
            self._sim.log("vcenter", f"{name}: policy {judgement.message}")
            actions = ", ".join(judgement.actions)
            self._post(POLICY_FAILED_EVENT, name, f"{judgement.message} (actions: {actions})")
        if Action.ALARM in judgement.actions or judgement.decisions:
            self._set_policy_alarm(name, RED if Action.ALARM in judgement.actions else GREEN)

    def _hand_over(self, agent: HostAgent, key: SealedKey) -> None:
        """Give a host its key, in a form that only its own TPM can open; a host that cannot has none."""
        try:
            session = agent.login(*self._credentials)
            try:
                params = {"credential_blob": key.credential_blob, "encrypted_secret": key.encrypted_secret}
                agent.call("EnableCrypto", params, session=session)
            finally:
                agent.logout(session)
        except MethodFault as fault:
            self._post("HostCryptoFailedEvent", agent.name, f"{agent.name} did not take its key: {fault}")

    def _set_policy_alarm(self, name: str, status: str) -> None:
        before = self._hosts[name].policy_alarm
        if before != status:
            self._hosts[name] = evolve(self._hosts[name], policy_alarm=status)
            text = f"Alarm '{POLICY_ALARM_NAME}' on {name} changed from {before} to {status}"
            self._post("AlarmStatusChangedEvent", name, text)

    def lose(self, agent: HostAgent, error: VmksimError) -> None:
        """Note that a host could not be reached: a new one stays out, a known one is not responding."""
        name = agent.name
        if name not in self._hosts:
            self._post("HostAddFailedEvent", name, f"Cannot add host {name}: {error}")
            return
        self._hosts[name] = evolve(self._hosts[name], connection_state="notResponding", away=True)
        self._post("HostConnectionLostEvent", name, f"Host {name} is not responding: {error}")

    def _info(self, outcome: Outcome) -> TpmAttestationInfo | None:
        if outcome.accepted is None:
            return None
        return TpmAttestationInfo(time=self._sim.utc_now(), status=outcome.status, message=outcome.message)

    def _set_alarm(self, name: str, status: str) -> None:
        before = self._hosts[name].alarm
        if before == status:
            return
        self._hosts[name] = evolve(self._hosts[name], alarm=status)
        self._post(
            "AlarmStatusChangedEvent",
            name,
            f"Alarm '{ALARM_NAME}' on {name} changed from {before} to {status}",
        )

    def _post(self, type_id: str, host: str, message: str) -> None:
        self._sim.trace.emit(VC_EVENT, type_id, host, message)
        if len(self.events) < EVENTS_MAX:
            self.events.append(
                VcEvent(
                    key=len(self.events) + 1,
                    event_type_id=type_id,
                    created_time=self._sim.utc_now(),
                    host=host,
                    full_formatted_message=message,
                )
            )


class _Ending:
    """What happens when one attestation ends: a plain object, so that it can be pickled with its procedure."""

    def __init__(
        self, vcenter: VCenter, run: AttestationRun, on_done: OnDone | None, on_error: OnError | None
    ) -> None:
        self._vcenter = vcenter
        self._run = run
        self._on_done = on_done
        self._on_error = on_error

    def done(self) -> None:
        """Record the outcome and tell whoever waits for it."""
        outcome = self._run.outcome
        assert outcome is not None, "the last step of a run sets its outcome"
        entry = self._vcenter.record(self._run.agent, outcome)
        if self._on_done is not None:
            self._on_done(entry)

    def failed(self, error: VmksimError) -> None:
        """Note that the host could not be reached, and tell whoever waits; nobody waiting is no error."""
        self._vcenter.lose(self._run.agent, error)
        if self._on_error is not None:
            self._on_error(error)
