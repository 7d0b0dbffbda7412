"""The engine that knows a state: a key is handed out only to a host in exactly the state that was enrolled.

Models: the composite digest of chosen PCRs of one bank, enrolled once for a host and its TPM while it is accepted; a key of the host that leaves the engine only wrapped for the endorsement key and the attestation key of the
host's TPM, so that nobody else can open it, and only while the quoted PCRs have the enrolled digest.

Leaves out: TPM2 policies on the host's own TPM (`sim.kernel.sealing` seals the configuration that way); enrolment of a
second state for the time of an update, which `enroll` repeats.

Sources: TPM 2.0 Library 1.59, part 1 chapters 19.7.7 (PolicyPCR) and 24 (credentials).
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from attrs import field, frozen

from sim.attest.credential import make_credential
from sim.attest.engines.case import Case, Decision, Finding, decision, unproven
from sim.attest.keys import name_of, read_public
from sim.attest.verdict import AttestationError
from sim.core.rng import RandomSource

__all__ = ["SealEngine", "SealedKey", "composite"]

KEY_BYTES: Final = 32
DEFAULT_PCRS: Final = (*range(8), *range(11, 15), *range(17, 23))
"""Firmware, what the boot loader measures, and what a dynamic launch measures instead."""


@frozen(kw_only=True)
class SealedKey:
    """A key on its way to a host: TPMS_ID_OBJECT and TPMU_ENCRYPTED_SECRET, which only its TPM can open."""

    credential_blob: bytes = field(repr=False)
    encrypted_secret: bytes = field(repr=False)


def composite(case: Case, bank: str, pcrs: tuple[int, ...]) -> bytes:
    """Return the SHA-256 over the named PCR values in order; AttestationError when one was not quoted."""
    values = case.evidence.pcr_values.get(bank, {})
    missing = [pcr for pcr in pcrs if pcr not in values]
    if missing:
        raise AttestationError("seal_coverage", f"PCR {missing[0]} of the {bank} bank was not quoted")
    return hashlib.sha256(b"".join(values[pcr] for pcr in pcrs)).digest()


class SealEngine:
    """Trusts a host in its enrolled state, and holds the key that is released then; `chance` draws the keys."""

    def __init__(
        self,
        chance: RandomSource,
        *,
        bank: str = "sha256",
        pcrs: tuple[int, ...] = DEFAULT_PCRS,
        name: str = "seal",
    ) -> None:
        self.name = name
        self.bank = bank
        self.pcrs = pcrs
        self._chance = chance
        self._known: dict[str, bytes] = {}
        self._tpms: dict[str, bytes] = {}
        self._keys: dict[str, bytes] = {}

    def enroll(self, case: Case) -> None:
        """Take the state of an accepted host as its known one; AttestationError when the host is not accepted."""
        if not case.verdict.accepted:
            raise AttestationError("seal_enrol", f"{case.host} is not accepted, so its state is not enrolled")
        self._known[case.host] = composite(case, self.bank, self.pcrs)
        self._tpms[case.host] = name_of(case.evidence.ek_public)
        if case.host not in self._keys:
            self._keys[case.host] = self._chance.bytes(KEY_BYTES)

    def knows(self, host: str) -> bool:
        """Tell whether a state of this host is enrolled."""
        return host in self._known

    def decide(self, case: Case) -> Decision:
        """Decide about one host: the enrolled state or a finding; a host without one is not trusted."""
        missing = unproven(case)
        if missing is not None:
            return decision(self.name, [missing])
        if case.host not in self._known:
            return decision(
                self.name, [Finding(rule="not_enrolled", message=f"no state of {case.host} is known")]
            )
        try:
            if name_of(case.evidence.ek_public) != self._tpms[case.host]:
                raise AttestationError("other_tpm", f"{case.host} has another TPM than the one enrolled")
            found = composite(case, self.bank, self.pcrs)
        except AttestationError as error:
            return decision(self.name, [Finding(rule=error.check, message=error.message)])
        if found == self._known[case.host]:
            return decision(self.name, [])
        return decision(
            self.name,
            [
                Finding(
                    rule="other_state",
                    message=f"{case.host} is not in its known state",
                    evidence=f"composite {found.hex()} instead of {self._known[case.host].hex()}",
                )
            ],
        )

    def release(self, case: Case) -> SealedKey:
        """Return the host's key, wrapped for its TPM; AttestationError unless the engine trusts the host now."""
        verdict = self.decide(case)
        if not verdict.trusted:
            raise AttestationError("key_withheld", verdict.message)
        evidence = case.evidence
        blob, encrypted = make_credential(
            read_public(evidence.ek_public), name_of(evidence.ak_public), self._keys[case.host], self._chance
        )
        return SealedKey(credential_blob=blob, encrypted_secret=encrypted)

    def is_key_of(self, host: str, key: bytes) -> bool:
        """Tell whether these bytes are the key of that host."""
        return hmac.compare_digest(self._keys.get(host, b""), key)
