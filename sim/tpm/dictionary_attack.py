"""Protection against guessing: the count of failed authorisations, lockout, and how both heal with time.

Models: one counter for all protected entities, the separate rule for the lockout hierarchy, self-healing in the
TPM's own time, and the failure that an unorderly stop counts for.
Leaves out: which entities are protected (`sim.tpm.entities`).
Sources: TPM 2.0 Library part 1, 19.8; part 3, chapter 25; defaults measured on swtpm 0.7.1.
"""

from __future__ import annotations

from sim.core.facts import fact

__all__ = ["DictionaryAttack"]

_SOURCE = "swtpm 0.7.1, properties MAX_AUTH_FAIL, LOCKOUT_INTERVAL, LOCKOUT_RECOVERY"
MAX_TRIES = fact("tpm.da_max_tries", 3, unit="failures", source=_SOURCE, kind="measured").value
RECOVERY_S = fact("tpm.da_recovery_s", 1000, unit="s", source=_SOURCE, kind="measured").value
LOCKOUT_RECOVERY_S = fact("tpm.da_lockout_recovery_s", 1000, unit="s", source=_SOURCE, kind="measured").value
_MS_PER_S = 1000


class DictionaryAttack:
    """The counter and its settings; every method that depends on time takes the TPM's `time` in ms."""

    def __init__(self) -> None:
        self.used = False
        """Whether a protected entity was used since Startup: then an unorderly stop counts as a failure."""
        self.reset()

    def reset(self) -> None:
        """Forget failures and return to the settings of a new TPM, as Clear does."""
        self.failed_tries = 0
        self.max_tries = MAX_TRIES
        self.recovery_s = RECOVERY_S
        self.lockout_recovery_s = LOCKOUT_RECOVERY_S
        self.lockout_usable = True
        self.healed_ms = 0
        self.lockout_failed_ms = 0

    def heal(self, time_ms: int) -> None:
        """Take failures back for the time that has passed."""
        if not self.recovery_s:
            self.failed_tries = 0
        elif self.failed_tries:
            steps = max(0, time_ms - self.healed_ms) // _MS_PER_S // self.recovery_s
            self.healed_ms += steps * self.recovery_s * _MS_PER_S
            self.failed_tries = max(0, self.failed_tries - steps)
        if not self.lockout_usable and self.lockout_recovery_s:
            waited_s = max(0, time_ms - self.lockout_failed_ms) // _MS_PER_S
            self.lockout_usable = waited_s >= self.lockout_recovery_s

    def is_locked(self, *, lockout: bool) -> bool:
        """Whether the lockout authorisation, or a protected entity, may not be tried now."""
        return not self.lockout_usable if lockout else self.failed_tries >= self.max_tries

    def fail(self, time_ms: int, *, lockout: bool) -> None:
        """Count a failed authorisation."""
        if lockout:
            self.lockout_usable = False
            self.lockout_failed_ms = time_ms
        else:
            if self.failed_tries < self.max_tries:
                self.failed_tries += 1
            self.healed_ms = time_ms

    def start(self, *, orderly: bool) -> None:
        """Apply Startup: time begins at 0 again, and an unorderly stop after a use counts as a failure."""
        if self.used and not orderly and self.failed_tries < self.max_tries:
            self.failed_tries += 1
        if not self.lockout_recovery_s:
            self.lockout_usable = True
        self.used = False
        self.healed_ms = 0
        self.lockout_failed_ms = 0
