"""The host's saved configuration: encrypted under a key that the TPM gives out to the machine in its sealed state alone.

Models: at the first boot with a usable TPM a 32-byte configuration key is drawn, sealed, and its blobs are stored on
the volume `store` beside the configuration, encrypted with AES-256-GCM.  At each later boot the TPM must unseal it;
what it cannot unseal only the recovery key opens, given as a boot option.  Then a new key is drawn, since the old one
stood in a measured command line, and sealed to the present state.  Without a usable TPM the configuration is plain.

What is required is fixed at the first boot by what is then on, and changed by `require` (esxcli's
`--require-secure-boot` and `--require-exec-installed-only`): Secure Boot puts PCR 7 into the policy,
execInstalledOnly the PCR of the kernel's command line (14, or 21 after a late launch).  That PCR holds all options and
signers too.  Before the running kernel itself changes the boot bank, it therefore drops that PCR from the policy for
one boot (`expect_change`), and at the next one looks at the option itself.

Leaves out: what real configurations hold, the other forms of key (a vCenter key provider), rotation on demand.

Sources: VMware's security guide, "Securing the ESXi Configuration" (7.0 U2 and later: the key, what it is sealed to,
the recovery key); which PCRs are in ESXi's policy is not public, ours are assumed.  The texts are ours.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from attrs import evolve, frozen
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sim.boot.bootinfo import BootInfo
from sim.boot.context import printable
from sim.boot.pcrmap import LOADER_MAP
from sim.core.facts import fact
from sim.core.rng import Rng
from sim.core.trace import record
from sim.errors import FormatError, VmksimError
from sim.hw.board import Board
from sim.kernel.options import EXEC_INSTALLED_ONLY, RECOVERY_OPTION
from sim.kernel.recovery_key import KEY_BYTES, format_recovery_key, parse_recovery_key
from sim.kernel.sealing import SEALING_ERRORS, SealedSecret, Sealer
from sim.kernel.tpm_driver import TpmDriver

__all__ = [
    "ENCRYPTED_FILE",
    "PLAIN_FILE",
    "SEALED_FILE",
    "Configuration",
    "ConfigurationError",
    "ConfigurationLockedError",
    "ConfigurationVault",
]

KERNEL_CONFIGURATION = record(
    "kernel.configuration", host=str, boot_id=str, mode=str, outcome=str, pcrs=str, text=str
)
"""The configuration was "plain", "sealed" anew, "unsealed", "recovered", or stayed "locked"."""

SEALED_FILE = "configuration.key"
ENCRYPTED_FILE = "configuration.aes"
PLAIN_FILE = "configuration.json"

SECURE_BOOT_PCR = fact(
    "kernel.seal_secure_boot_pcr",
    7,
    unit="PCR",
    source="which PCRs ESXi seals to is not public; 7 holds the Secure Boot state",
    kind="assumed",
)
EXEC_PCR = fact(
    "kernel.seal_exec_installed_only_pcr",
    LOADER_MAP.command_line,
    unit="PCR",
    source="not public; the PCR of the kernel's command line, after a late launch 21",
    kind="assumed",
)

_MAGIC = b"configuration 1\n"
_NONCE_BYTES = 12
_BYTES_MAX = 1 << 16
_WHAT = "host configuration"
_FIELDS = {"host": str, "boots": int, "require_secure_boot": bool, "require_exec_installed_only": bool}


class ConfigurationError(VmksimError):
    """The way in which the configuration is kept cannot be changed as asked for."""


class ConfigurationLockedError(VmksimError):
    """The configuration cannot be read: the host must not go on with another one."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"The configuration of this host is locked: {self.reason}. "
            f"Undo what was changed, or give its recovery key as boot option {RECOVERY_OPTION}."
        )


@frozen(kw_only=True)
class Configuration:
    """The saved configuration: whose it is, how many boots have read it, and what every boot must fulfil."""

    host: str
    boots: int = 1
    require_secure_boot: bool = False
    require_exec_installed_only: bool = False

    def to_bytes(self) -> bytes:
        """Return it as JSON, fields in their order."""
        return json.dumps({name: getattr(self, name) for name in _FIELDS}).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Configuration:
        """Read what `to_bytes` wrote; `FormatError` for anything else."""
        try:
            fields = json.loads(data) if len(data) <= _BYTES_MAX else None
        except (ValueError, RecursionError):
            fields = None
        if not isinstance(fields, dict) or {name: type(value) for name, value in fields.items()} != _FIELDS:
            raise FormatError(_WHAT, "JSON", f"want a table of {', '.join(_FIELDS)}")
        return cls(**fields)


class ConfigurationVault:
    """Reads the configuration at each boot (`unlock`) and keeps it; `mode` is "TPM" or "NONE".

    `rng` must be the boot's own: its streams begin anew whenever a vault is made, and a nonce must not repeat.
    `forget_option` takes a used recovery key out of the boot bank (a bound method).
    """

    def __init__(
        self,
        board: Board,
        boot: BootInfo,
        tpm: TpmDriver,
        rng: Rng,
        forget_option: Callable[[str], object],
    ) -> None:
        self._board = board
        self._boot = boot
        self._tpm = tpm
        self._forget_option = forget_option
        self._keys = rng.stream("configuration/key")
        self._nonces = rng.stream("configuration/nonce")
        self._chance = rng.stream("configuration/session")
        self._key = b""
        self._sealed_to: tuple[int, ...] = ()
        self.mode = "NONE"
        self.configuration = Configuration(host=board.spec.name)

    @property
    def exec_installed_only(self) -> bool:
        """Whether this boot was told to run nothing but what installed VIBs hold."""
        return self._boot.option(EXEC_INSTALLED_ONLY).upper() == "TRUE"

    def unlock(self) -> None:
        """Read the configuration, or make it at the first boot; `ConfigurationLockedError` when it stays shut."""
        store = self._board.disk.volume("store")
        if not (store.exists(SEALED_FILE) or store.exists(ENCRYPTED_FILE)):
            self._begin()
            return
        try:
            sealed = self._read_unsealed()
        except ConfigurationLockedError as locked:
            if not self._boot.option(RECOVERY_OPTION):
                self._note("locked", locked.reason)
                raise
            self._recover(locked.reason)
            return
        self._go_on(sealed)

    def status(self) -> dict[str, Any]:
        """Return how the configuration is kept, as `esxcli system settings encryption get` tells it."""
        return {
            "mode": self.mode,
            "require_secure_boot": self.configuration.require_secure_boot,
            "require_exec_installed_only": self.configuration.require_exec_installed_only,
        }

    def recovery_key(self) -> str:
        """Return the digits that open the configuration without the TPM."""
        if self.mode != "TPM":
            raise ConfigurationError("the configuration is not encrypted, so there is no recovery key")
        return format_recovery_key(self._key)

    def require(self, *, secure_boot: bool | None = None, exec_installed_only: bool | None = None) -> None:
        """Set what every boot must fulfil, and seal the key to it; what is asked for must hold now."""
        if self.mode != "TPM":
            raise ConfigurationError("the configuration is not encrypted: a usable TPM is needed at the boot")
        if secure_boot and not self._boot.secure_boot:
            raise ConfigurationError("Secure Boot is off, so it cannot be required")
        if exec_installed_only and not self.exec_installed_only:
            raise ConfigurationError(f"{EXEC_INSTALLED_ONLY} is off, so it cannot be required")
        now = self.configuration
        wanted = evolve(
            now,
            require_secure_boot=now.require_secure_boot if secure_boot is None else secure_boot,
            require_exec_installed_only=(
                now.require_exec_installed_only if exec_installed_only is None else exec_installed_only
            ),
        )
        self._seal(self._key, wanted, self._pcrs(wanted))

    def expect_change(self) -> None:
        """Leave the command line's PCR out of the policy of the next boot: the kernel itself changes what it holds."""
        if self._exec_pcr in self._sealed_to:
            pcrs = tuple(pcr for pcr in self._sealed_to if pcr != self._exec_pcr)
            self._seal(self._key, self.configuration, pcrs)
            self._note("sealed", "for one boot without the command line")

    # -- the first boot, a later one, and one with the recovery key

    def _begin(self) -> None:
        """Take over a plain configuration or make the first one; encrypt it where there is a usable TPM."""
        store = self._board.disk.volume("store")
        known = Configuration(host=self._board.spec.name)
        if store.exists(PLAIN_FILE):
            try:
                known = Configuration.from_bytes(store.read(PLAIN_FILE))
                known = evolve(known, boots=known.boots + 1)
            except FormatError as error:
                self._log(f"the saved configuration is damaged and begun anew: {error}")
        self._keep(self._required_now(known))

    def _required_now(self, known: Configuration) -> Configuration:
        return evolve(
            known,
            require_secure_boot=self._boot.secure_boot,
            require_exec_installed_only=self.exec_installed_only,
        )

    def _keep(self, configuration: Configuration, *, reason: str = "") -> None:
        """Encrypt a configuration under a new key, or store it plain where no TPM does its part."""
        if self._tpm.client() is None:
            self._store_plain(configuration, reason or f"TPM {self._tpm.state}")
            return
        try:
            self._seal(self._keys.bytes(KEY_BYTES), configuration, self._pcrs(configuration))
        except SEALING_ERRORS as error:
            self._store_plain(configuration, f"the TPM cannot seal a key: {error}")
            return
        self._note("recovered" if reason else "sealed", reason)

    def _go_on(self, sealed: SealedSecret) -> None:
        """Count the boot; seal to what is required, should that be more than the last boot could fulfil."""
        self._note("unsealed")
        counted = evolve(self.configuration, boots=self.configuration.boots + 1)
        pcrs = self._pcrs(counted)
        if self._boot.option(RECOVERY_OPTION):
            self._log(f"{RECOVERY_OPTION} was not needed")
            self._forget_option(RECOVERY_OPTION)
        if pcrs != sealed.pcrs:
            try:
                self._seal(self._key, counted, pcrs)
            except SEALING_ERRORS as error:
                self._log(f"the TPM cannot seal the configuration key anew: {error}")
            else:
                self._note("sealed", "to what is required")
                return
        self._store_encrypted(counted)

    def _recover(self, reason: str) -> None:
        """Open the configuration with the recovery key, and keep it under a new one."""
        store = self._board.disk.volume("store")
        try:
            self._key = parse_recovery_key(self._boot.option(RECOVERY_OPTION))
            opened = self._opened(store.read(ENCRYPTED_FILE) if store.exists(ENCRYPTED_FILE) else b"")
        except FormatError as error:
            self._note("locked", str(error))
            raise ConfigurationLockedError(f"{reason}; {error}") from error
        self._log(f"configuration recovered; it was locked: {reason}")
        self._forget_option(RECOVERY_OPTION)
        self._keep(
            evolve(
                opened,
                boots=opened.boots + 1,
                require_secure_boot=opened.require_secure_boot and self._boot.secure_boot,
                require_exec_installed_only=opened.require_exec_installed_only and self.exec_installed_only,
            ),
            reason=reason,
        )

    # -- reading and writing

    def _read_unsealed(self) -> SealedSecret:
        """Let the TPM unseal the key and open the configuration with it."""
        store = self._board.disk.volume("store")
        client = self._tpm.client()
        for path in (SEALED_FILE, ENCRYPTED_FILE):
            if not store.exists(path):
                raise ConfigurationLockedError(f"{path} is missing")
        if client is None:
            raise ConfigurationLockedError(f"there is no usable TPM, it is {self._tpm.state}")
        try:
            sealed = SealedSecret.from_bytes(store.read(SEALED_FILE))
            self._key = self._sealer().unseal(sealed)
            opened = self._opened(store.read(ENCRYPTED_FILE))
        except SEALING_ERRORS as error:
            raise ConfigurationLockedError(f"the TPM does not give out its key ({error})") from error
        if opened.require_secure_boot and not self._boot.secure_boot:
            raise ConfigurationLockedError("it requires Secure Boot, which is off")
        if opened.require_exec_installed_only and not self.exec_installed_only:
            raise ConfigurationLockedError(f"it requires {EXEC_INSTALLED_ONLY}, which is off")
        self.mode, self.configuration, self._sealed_to = "TPM", opened, sealed.pcrs
        return sealed

    def _seal(self, key: bytes, configuration: Configuration, pcrs: tuple[int, ...]) -> None:
        """Seal a key and store everything under it; where sealing fails, nothing has changed."""
        sealed = self._sealer().seal(key, pcrs)
        self._board.disk.volume("store").write(SEALED_FILE, sealed.to_bytes())
        self.mode, self._key, self._sealed_to = "TPM", key, pcrs
        self._store_encrypted(configuration)

    def _store_encrypted(self, configuration: Configuration) -> None:
        self.configuration = configuration
        nonce = self._nonces.bytes(_NONCE_BYTES)
        text = AESGCM(self._key).encrypt(nonce, configuration.to_bytes(), _MAGIC)
        self._rewrite({ENCRYPTED_FILE: _MAGIC + nonce + text}, (PLAIN_FILE,))

    def _store_plain(self, configuration: Configuration, reason: str) -> None:
        self.mode, self._key, self._sealed_to = "NONE", b"", ()
        self.configuration = evolve(
            configuration, require_secure_boot=False, require_exec_installed_only=False
        )
        self._rewrite({PLAIN_FILE: self.configuration.to_bytes()}, (SEALED_FILE, ENCRYPTED_FILE))
        self._note("plain", reason)

    def _rewrite(self, files: dict[str, bytes], removed: tuple[str, ...]) -> None:
        store = self._board.disk.volume("store")
        for path, data in files.items():
            store.write(path, data)
        for path in removed:
            if store.exists(path):
                store.remove(path)

    def _opened(self, data: bytes) -> Configuration:
        """Decrypt a stored configuration with the key at hand; `FormatError` when key or bytes are not its own."""
        if not data.startswith(_MAGIC) or len(data) < len(_MAGIC) + _NONCE_BYTES:
            raise FormatError(_WHAT, "offset 0", "the mark of an encrypted configuration is missing")
        at = len(_MAGIC) + _NONCE_BYTES
        try:
            text = AESGCM(self._key).decrypt(data[len(_MAGIC) : at], data[at:], _MAGIC)
        except (InvalidTag, ValueError):
            raise FormatError(_WHAT, f"offset {at}", "the key does not open it") from None
        return Configuration.from_bytes(text)

    # -- helpers

    @property
    def _exec_pcr(self) -> int:
        return self._boot.pcr_map.command_line if self._boot.drtm else EXEC_PCR.value

    def _pcrs(self, configuration: Configuration) -> tuple[int, ...]:
        """Return the PCRs of the policy; that of the command line not while a recovery key stands in it."""
        chosen = (SECURE_BOOT_PCR.value,) if configuration.require_secure_boot else ()
        if configuration.require_exec_installed_only and not self._boot.option(RECOVERY_OPTION):
            chosen = (*chosen, self._exec_pcr)
        return chosen

    def _sealer(self) -> Sealer:
        client = self._tpm.client()
        if client is None:
            raise FormatError("TPM response", "command", f"there is none, the TPM is {self._tpm.state}")
        return Sealer(client.transmit, self._chance, client.locality)

    def _note(self, outcome: str, text: str = "") -> None:
        pcrs = ", ".join(map(str, self._sealed_to)) if self.mode == "TPM" else ""
        self._board.sim.trace.emit(
            KERNEL_CONFIGURATION,
            self._board.spec.name,
            self._boot.boot_id,
            self.mode,
            outcome,
            pcrs,
            printable(text),
        )
        where = f", mode TPM, PCRs {pcrs or 'none'}" if self.mode == "TPM" else ""
        self._log(f"configuration {outcome}{where}{f': {text}' if text else ''}")

    def _log(self, text: str) -> None:
        self._board.sim.log("vmkernel", f"Encryption: {printable(text)}")
