"""The verifier: from the bytes of a host, a credential made for it and a nonce to a verdict with reasons.

Models: one appraisal, read from top to bottom.  Each stage is a list of small checks; a check that refuses becomes a
reason, and a stage with a reason ends the appraisal, because what follows would judge unproven data.  The last stage
collects everything it finds, so that all changed components are named at once.

Leaves out: the making of credentials (`sim.attest.credential`) and nonces, which the caller hands in; memory of earlier
verdicts, which it hands in as `last`.

Sources: TPM 2.0 Library 1.59 (quotes); TCG PC Client Platform Firmware Profile 1.05 (event log); vmware/esx-boot
(ESXi's measurements); CVE-2024-29038 and CVE-2024-29039 (checks that a verifier forgot).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, ParamSpec, TypeVar

from sim.attest import esx_events, event_log, firmware, keys, launch, phases, platform, quote, software
from sim.attest.certificates import check_ek_certificate, check_ek_certificate_present
from sim.attest.credential import Challenge, check_activation
from sim.attest.esx_events import Measurement
from sim.attest.evidence import Evidence, check_sizes
from sim.attest.policy import FIRMWARE_PCRS, LAUNCH_PCRS, LOADER_PCRS, AppraisalPolicy, LaunchRule
from sim.attest.verdict import (
    ACCEPTED,
    NOT_ACCEPTED,
    AttestationError,
    ClockState,
    Component,
    Reason,
    Verdict,
)
from sim.errors import FormatError
from sim.image.algorithms import PublicKey
from sim.image.efi_lists import ListEntry
from sim.tpm.constants import TPM_ALG
from sim.tpm.eventlog import EventLog, TcgEvent
from sim.tpm.hashing import bank_name
from sim.tpm.tagged import EsxTag
from sim.tpm.wire import TPMS_QUOTE_INFO

__all__ = ["Verifier"]

ALGORITHM: Final = TPM_ALG.SHA256
"""The bank whose digests are looked up in the manifest."""

P = ParamSpec("P")
T = TypeVar("T")


class Verifier:
    """Appraises evidence under one policy; holds no state between appraisals."""

    def __init__(self, policy: AppraisalPolicy) -> None:
        self.policy = policy

    def appraise(
        self,
        evidence: Evidence,
        nonce: bytes,
        challenge: Challenge,
        *,
        last: ClockState | None = None,
        rebooted: bool | None = None,
        resumes: int = 0,
    ) -> Verdict:
        """Judge `evidence` as an answer to `nonce` and `challenge`; never raises on hostile bytes.

        `last` is the clock of the last accepted verdict on this host, `rebooted` whether it was rebooted since then
        (None: not known), `resumes` how often it says that it came back from a suspend to memory since then.
        """
        appraisal = _Appraisal(self.policy, evidence)
        appraisal.run(nonce, challenge, last, rebooted=rebooted, resumes=resumes)
        return appraisal.verdict()


class _Stop(Exception):  # noqa: N818 - control flow inside one appraisal, never seen outside
    """A stage found a reason; nothing behind it can be judged."""


class _Appraisal:
    """One run of the verifier: what was found so far, and the reasons against it."""

    def __init__(self, policy: AppraisalPolicy, evidence: Evidence) -> None:
        self.policy = policy
        self.evidence = evidence
        self.reasons: list[Reason] = []
        self.clock: ClockState | None = None
        self.quoted = False
        self.secure_boot: bool | None = None
        self.launched: bool | None = None
        self.command_line: str | None = None
        self.components: list[Component] = []
        self.unknown: list[str] = []

    def run(
        self,
        nonce: bytes,
        challenge: Challenge,
        last: ClockState | None,
        *,
        rebooted: bool | None,
        resumes: int,
    ) -> None:
        """Run the stages in order until one of them refuses."""
        try:
            self.check(check_sizes, self.evidence)
            self.stage()
            key = self.key_is_a_vendors(challenge)
            info = self.quote_is_genuine(key, nonce, last, rebooted=rebooted, resumes=resumes)
            self.pcrs_are_quoted(info)
            events = self.log_explains_pcrs(info)
            self.firmware_is_sound(events)
            self.software_is_published(events)
        except _Stop:
            return

    def verdict(self) -> Verdict:
        """Return what came out."""
        values = self.evidence.pcr_values if self.quoted else {}
        return Verdict(
            status=NOT_ACCEPTED if self.reasons else ACCEPTED,
            reasons=tuple(self.reasons),
            pcr_values={bank: dict(pcrs) for bank, pcrs in values.items()},
            components=tuple(self.components),
            secure_boot=self.secure_boot,
            dynamic_launch=self.launched,
            command_line=self.command_line,
            replayed=self.launched is not None,
            clock=self.clock,
            unknown=tuple(self.unknown),
        )

    def check(self, check: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Run one check; a refusal becomes a reason, and the answer is then None."""
        try:
            return check(*args, **kwargs)
        except AttestationError as error:
            self.refuse(error)
        except FormatError as error:
            self.reasons.append(Reason(code="format", message=str(error)))
        return None

    def refuse(self, error: AttestationError) -> None:
        """Add a refusal to the reasons."""
        self.reasons.append(
            Reason(
                code=error.check, message=error.message, component=error.component, evidence=error.evidence
            )
        )

    def need(self, check: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run one check whose answer the next ones need; a refusal ends the appraisal."""
        before = len(self.reasons)
        answer = self.check(check, *args, **kwargs)
        if len(self.reasons) > before:
            raise _Stop
        return answer  # type: ignore[return-value]  # None only if T holds None: no reason was added

    def stage(self) -> None:
        """End a stage: go on only without reasons."""
        if self.reasons:
            raise _Stop

    # ------------------------------------------------------------ the stages

    def key_is_a_vendors(self, challenge: Challenge) -> PublicKey:
        """Demand a known vendor's TPM, which holds the attestation key beside its endorsement key; return the former."""
        evidence, policy = self.evidence, self.policy
        endorsement = self.need(keys.read_public, evidence.ek_public)
        public = self.need(keys.read_public, evidence.ak_public)
        self.need(check_ek_certificate_present, endorsement, evidence.ek_certificate_der)
        certificate = self.need(
            check_ek_certificate, evidence.ek_certificate_der, policy.vendor_roots, policy.now
        )
        self.check(keys.check_ek_is_certified, endorsement, certificate.public_key)
        self.check(keys.check_ek_attributes, endorsement)
        self.check(keys.check_ak_attributes, public)
        self.check(keys.check_ak_scheme, public)
        self.check(check_activation, evidence, challenge)
        self.stage()
        return self.need(keys.public_key, public, "ak_public")

    def quote_is_genuine(
        self,
        key: PublicKey,
        nonce: bytes,
        last: ClockState | None,
        *,
        rebooted: bool | None,
        resumes: int,
    ) -> TPMS_QUOTE_INFO:
        """Demand a quote by the attestation key, over this nonce."""
        evidence = self.evidence
        signature = self.need(quote.read_signature, evidence.signature)
        self.check(quote.check_signature, key, evidence.attest, signature)
        self.stage()
        attest = self.need(quote.read_attest, evidence.attest)
        info = self.need(quote.check_magic_and_type, attest)
        self.check(quote.check_qualified_signer, attest, evidence.ak_public)
        self.check(quote.check_nonce, attest, nonce)
        known = resumes if self.policy.allow_resume else 0
        self.clock = self.check(quote.check_clock, attest, last, rebooted=rebooted, resumes=known)
        self.stage()
        return info

    def pcrs_are_quoted(self, info: TPMS_QUOTE_INFO) -> None:
        """Demand that the values offered are the attested ones and cover what the policy wants."""
        policy, values = self.policy, self.evidence.pcr_values
        self.check(quote.check_pcr_selection, info, values, policy.required_banks, policy.required_pcrs)
        self.check(quote.check_reference_coverage, values, policy.reference_pcrs)
        self.check(quote.check_pcr_digest, info, values)
        self.stage()
        self.quoted = True

    def log_explains_pcrs(self, info: TPMS_QUOTE_INFO) -> tuple[TcgEvent, ...]:
        """Demand that the event log replays to every quoted value, in every quoted bank."""
        policy, evidence = self.policy, self.evidence
        self.check(event_log.check_not_truncated, truncated=evidence.log_truncated)
        log: EventLog = self.need(event_log.read_event_log, evidence.event_log)
        events = event_log.extending_events(log)
        algorithms = [selection.hash for selection in info.pcrSelect if selection.pcrs]
        self.need(event_log.check_banks, log, algorithms)
        for event in events:
            self.check(event_log.check_covered, event, evidence.pcr_values)
        self.stage()
        launched = any(event.pcr in event_log.LAUNCH_PCRS for event in events)
        replayed = self.need(event_log.replay_all, log, launched=launched)
        locality = event_log.startup_locality(log)
        self.check(event_log.check_startup_locality, locality, policy.startup_locality)
        self.check(
            event_log.check_dynamic_launch,
            evidence.pcr_values,
            launched=launched,
            required=policy.launch is LaunchRule.REQUIRED,
            forbidden=policy.launch is LaunchRule.FORBIDDEN,
        )
        for algorithm in algorithms:
            self.compare(bank_name(algorithm), replayed[algorithm], events)
        used = LAUNCH_PCRS[policy.launch_generation] if launched else LOADER_PCRS
        self.check(event_log.check_extended, events, FIRMWARE_PCRS + used)
        self.stage()
        self.launched = launched
        return events

    def compare(self, bank: str, replayed: dict[int, bytes], events: tuple[TcgEvent, ...]) -> None:
        """Compare every quoted PCR of one bank with its replay, and with its golden value if there is one."""
        for pcr, value in sorted(self.evidence.pcr_values[bank].items()):
            count = sum(event.pcr == pcr for event in events)
            self.check(event_log.check_pcr_replay, bank, pcr, value, replayed[pcr], events=count)
            golden = self.policy.reference_pcrs.get(bank, {}).get(pcr)
            if golden is not None:
                self.check(event_log.check_golden_value, bank, pcr, value, golden)

    def firmware_is_sound(self, events: tuple[TcgEvent, ...]) -> None:
        """Demand a complete firmware boot with Secure Boot on and published boot loaders."""
        for event in events:
            self.check(esx_events.check_event_belongs, event)
            self.check(firmware.check_hashed_data, event, firmware.STRICT_TYPES)
        if self.launched:
            self.check(launch.check_launch_events, events)
            if self.policy.require_launch_policy:
                self.check(launch.check_launch_policy, events)
                if launch.is_legacy(events):
                    self.unknown.append(
                        "whether the launch control policy is about the launched code: legacy use"
                    )
        self.stage()
        self.check(firmware.check_separators, events)
        order = self.check(firmware.check_pcr7_order, events)
        self.check(phases.check_phases, events)
        self.check(firmware.check_exit_boot_services, events)
        loaders = frozenset(digest for loader in self.policy.manifest.loaders for digest in loader.digests)
        if self.check(firmware.check_boot_loaders, events, ALGORITHM, loaders):
            self.check(firmware.check_loaders_present, events, ALGORITHM, self.policy.manifest.loaders)
        if order is None:
            return
        variables, authorities = order
        self.secure_boot = self.check(firmware.secure_boot_state, variables)
        entries: dict[str, tuple[ListEntry, ...]] | None = {}
        if self.secure_boot is not None:
            self.check(
                firmware.check_secure_boot,
                enabled=self.secure_boot,
                authorities=len(authorities),
                required=self.policy.require_secure_boot,
            )
        if self.secure_boot:
            entries = self.check(firmware.read_secure_boot_keys, variables)
            vouched = self.check(firmware.read_authorities, authorities)
            if entries is not None and vouched is not None:
                self.check(firmware.check_authorities, vouched, entries)
        self.platform_is_published(events, entries or {})

    def platform_is_published(
        self, events: tuple[TcgEvent, ...], entries: dict[str, tuple[ListEntry, ...]]
    ) -> None:
        """Demand firmware and Secure Boot keys that a maker published, or say that nobody published any."""
        platforms = self.policy.manifest.platforms
        for problem in platform.platform_problems(events, entries, ALGORITHM, platforms):
            self.refuse(problem)
        if not platforms:
            self.unknown.append("firmware code and Secure Boot keys: no maker's reference was given")

    def software_is_published(self, events: tuple[TcgEvent, ...]) -> None:
        """Demand published components, all of them, and allowed boot options."""
        policy, manifest = self.policy, self.policy.manifest
        measurements = self.need(esx_events.read_measurements, events)
        for measurement in measurements:
            self.check(esx_events.check_tag_text, measurement)
            self.check(
                esx_events.check_place,
                measurement,
                launched=bool(self.launched),
                generation=policy.launch_generation,
            )
        files = [one for one in measurements if one.tag in {EsxTag.MOD, EsxTag.BOOT_OPT}]
        self.find_components(files)
        self.check(software.check_once, self.components)
        self.check(software.check_load_order, self.components, manifest.orders)
        self.check(software.check_release, self.components, manifest)
        self.check(software.check_versions, measurements)
        self.check(software.check_asset_tags, measurements, policy.asset_tags)
        if not manifest.orders:
            self.unknown.append("the order in which components are loaded: the manifest gives none")
        if not manifest.releases:
            self.unknown.append("which versions of VIBs were released together: the manifest does not say")
        launchers = self.launchers(events)
        self.find_components(launchers)
        files += launchers
        for name in policy.components_to_expect():
            self.check(software.check_present, name, files, manifest)
        self.judge_signers_and_options(measurements, policy)

    def find_components(self, files: Iterable[Measurement]) -> None:
        """Look up which published components were measured."""
        for measurement in files:
            component = self.check(software.check_component, measurement, ALGORITHM, self.policy.manifest)
            if component is not None:
                self.components.append(component)

    def launchers(self, events: tuple[TcgEvent, ...]) -> list[Measurement]:
        """Judge the launched code where the launch measures it itself, and return it as a file that was measured."""
        found = []
        for event in events:
            if event.type == launch.LaunchEvent.MLE_HASH:
                name = self.check(launch.check_launched_code, event, ALGORITHM, self.policy.manifest)
                if name is not None:
                    found.append(
                        Measurement(
                            tag=EsxTag.MOD, pcr=event.pcr, body=name.encode(), digests=dict(event.digests)
                        )
                    )
        return found

    def judge_signers_and_options(
        self, measurements: tuple[Measurement, ...], policy: AppraisalPolicy
    ) -> None:
        """Judge who signed what was booted, and with which options."""
        for measurement in measurements:
            if measurement.tag is EsxTag.SIGNER:
                self.check(software.check_signer, measurement, policy.manifest)
        self.command_line = self.check(software.read_command_line, measurements)
        if self.command_line is not None:
            self.check(software.check_kernel, self.command_line, policy.manifest.orders)
            self.check(software.check_command_line, self.command_line, policy.command_lines)
            self.check(
                software.check_boot_options,
                self.command_line,
                policy.options_allowed,
                policy.options_required,
            )
