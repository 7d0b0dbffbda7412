"""The verifier alone, on files from anywhere: a quote, its signature, a key, PCR values, a log.

Models: the checks on a quote and on a log that need no vendor's roots and no published manifest: signature, magic and
type, nonce, the attributes that a public area claims and the name by which the quote means it, selection and digest of the PCR values, replay of the
log in every quoted bank, and what the log proves (`sim.attest.survey`).  Every refusal is a `Reason`.  What could not be
checked, because a file was not given, is told and not passed over.

Leaves out: that the key belongs to a real TPM, which takes a certificate and a credential (`sim.attest.verifier`); so an
accepted verdict here means: this key stated these values, and this log explains them.

Sources: TPM 2.0 Library 1.59, part 2 chapter 10.12 (TPMS_ATTEST); tpm2-tools 5.4, lib/files.c and tools/tpm2_quote.c
(the file of PCR values); CVE-2024-29038, CVE-2024-29039.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Final

from attrs import field, frozen
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_public_key

from sim.attest import event_log, keys, quote
from sim.attest.survey import LogSurvey, survey
from sim.attest.verdict import ACCEPTED, NOT_ACCEPTED, AttestationError, Reason
from sim.errors import FormatError, LimitError
from sim.image.algorithms import PublicKey, key_problem
from sim.tpm.constants import HASH_BYTES, PCR_COUNT, TPM_ALG, TPM_GENERATED_VALUE
from sim.tpm.eventlog import EventLog
from sim.tpm.hashing import BANK_NAMES, bank_name
from sim.tpm.wire import TPMS_ATTEST, TPMS_QUOTE_INFO

__all__ = [
    "Files",
    "OfflineVerdict",
    "appraise_files",
    "read_key",
    "read_pcr_file",
    "recognise",
    "write_pcr_file",
]

_MAGIC: Final = TPM_GENERATED_VALUE.to_bytes(4, "big")
SMALL_FILE_BYTES_MAX: Final = 64 * 1024
DIGESTS: Final = ("sha256", "sha384", "sha512")
"""The hashes that a quote may be signed over."""

_SELECTIONS_MAX: Final = 16
_BITMAP_BYTES: Final = 4
_SELECTION_STRUCT: Final = struct.Struct("<I" + "HB4sx" * _SELECTIONS_MAX)
_DIGESTS_PER_LIST: Final = 8
_DIGEST_LIST: Final = struct.Struct("<I" + "H64s" * _DIGESTS_PER_LIST)
_COUNT: Final = struct.Struct("<I")
_LISTS_MAX: Final = 64
_WHAT: Final = "file of PCR values"

Values = Mapping[str, Mapping[int, bytes]]


@frozen(kw_only=True)
class Files:
    """What was handed in; only the quote, its signature and the key are needed."""

    attest: bytes = field(repr=False)
    """TPMS_ATTEST, as `tpm2_quote -m` writes it."""
    signature: bytes = field(repr=False)
    """TPMT_SIGNATURE, as `tpm2_quote -s` writes it."""
    key: bytes = field(repr=False)
    """The attestation key: PEM or DER, or its TPM2B_PUBLIC, whose attributes are judged too."""
    nonce: bytes | None = field(default=None, repr=False)
    pcr_file: bytes | None = field(default=None, repr=False)
    """PCR values as `tpm2_quote -o` writes them."""
    log: bytes | None = field(default=None, repr=False)


@frozen(kw_only=True)
class OfflineVerdict:
    """What came out: `proven` names what the files prove, `unchecked` what nobody gave a file for."""

    status: str
    reasons: tuple[Reason, ...]
    proven: tuple[str, ...]
    unchecked: tuple[str, ...]
    pcr_values: dict[str, dict[int, bytes]] = field(repr=False)
    log: LogSurvey | None = None

    @property
    def accepted(self) -> bool:
        """Whether nothing was held against the files."""
        return self.status == ACCEPTED


def appraise_files(files: Files, *, require_secure_boot: bool = False) -> OfflineVerdict:
    """Judge the files; hostile bytes end in a reason, never in an exception."""
    work = _Work(files)
    try:
        work.run(require_secure_boot=require_secure_boot)
    except AttestationError as error:
        work.reasons.append(Reason(code=error.check, message=error.message, evidence=error.evidence))
    except FormatError as error:
        work.reasons.append(Reason(code="format", message=str(error)))
    return OfflineVerdict(
        status=NOT_ACCEPTED if work.reasons else ACCEPTED,
        reasons=tuple(work.reasons),
        proven=tuple(work.proven),
        unchecked=tuple(work.unchecked),
        pcr_values={bank: dict(pcrs) for bank, pcrs in work.values.items()},
        log=work.survey,
    )


class _Work:
    """One appraisal of files: each step adds to what is proven, or raises."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.reasons: list[Reason] = []
        self.proven: list[str] = []
        self.unchecked: list[str] = []
        self.values: Values = {}
        self.survey: LogSurvey | None = None

    def run(self, *, require_secure_boot: bool) -> None:
        """Take the steps in order; the first that raises ends the appraisal."""
        info, digest = self._quote()
        log = None if self.files.log is None else event_log.read_event_log(self.files.log)
        self._pcr_values(info, log, digest)
        if log is None:
            self.unchecked.append("no event log: what led to the PCR values is not known")
        else:
            self._explain(info, log)
        if require_secure_boot and (self.survey is None or not self.survey.secure_boot):
            raise AttestationError("secure_boot", "nothing proves that Secure Boot was on")
        if require_secure_boot and self.survey is not None and not self.survey.authorities:
            raise AttestationError(
                "secure_boot", "Secure Boot was on, yet no authority vouched for a boot loader"
            )

    def _quote(self) -> tuple[TPMS_QUOTE_INFO, str]:
        """Demand a genuine quote; return what it attests and the hash of its signature."""
        files = self.files
        for name in ("attest", "signature", "key"):
            if len(getattr(files, name)) > SMALL_FILE_BYTES_MAX:
                raise LimitError(name, "", f"more than {SMALL_FILE_BYTES_MAX} bytes")
        key, judged = read_key(files.key)
        signature = quote.read_signature(files.signature)
        digest = quote.check_signature(key, files.attest, signature, DIGESTS, pss=True)
        attest = quote.read_attest(files.attest)
        info = quote.check_magic_and_type(attest)
        self.proven.append("the key signed this quote")
        self._key(attest, judged=judged)
        if files.nonce is None:
            self.unchecked.append("no nonce: the quote may be an old one")
        else:
            quote.check_nonce(attest, files.nonce, bytes_min=1)
            self.proven.append("the quote answers this nonce")
        return info, digest

    def _key(self, attest: TPMS_ATTEST, *, judged: bool) -> None:
        """Say what is known of the key, which is little: only a credential for it can prove that a TPM holds it."""
        if not judged:
            self.unchecked.append(
                "the key is a bare public key: whether it is a TPM's restricted key is not known"
            )
            return
        self.unchecked.append(
            "the public area says that the key is a TPM's restricted signing key: no credential proves that a TPM holds it"
        )
        hierarchy = quote.primary_of(attest, self.files.key)
        if hierarchy:
            self.proven.append(f"the quote names this key, as a primary key of the {hierarchy} hierarchy")
        else:
            self.unchecked.append(
                "the quote names no primary key: whether it means this one is not known without its parent's name"
            )

    def _pcr_values(self, info: TPMS_QUOTE_INFO, log: EventLog | None, digest: str) -> None:
        """Find the quoted values: in the file of PCR values, or by replay of the log."""
        banks = {selection.hash for selection in info.pcrSelect if selection.pcrs}
        if not banks:
            raise AttestationError("pcr_selection", "the quote covers no PCR")
        if banks == {TPM_ALG.SHA1}:
            self.unchecked.append(
                "the quote covers the SHA-1 bank alone: who can make two inputs with one digest can exchange them unseen"
            )
        if self.files.pcr_file is not None:
            values: Values = read_pcr_file(self.files.pcr_file)
        elif log is not None:
            values = _replayed(info, log)
        else:
            self.unchecked.append("no PCR values: the quote holds only a digest over them")
            return
        quote.check_pcr_selection(info, values, (), ())
        quote.check_pcr_digest(info, values, digest)
        self.values = values
        self.proven.append("the PCR values are the quoted ones")

    def _explain(self, info: TPMS_QUOTE_INFO, log: EventLog) -> None:
        """Compare every quoted PCR with the replay, then look through what the quote covers of the log."""
        events = event_log.extending_events(log)
        algorithms = [selection.hash for selection in info.pcrSelect if selection.pcrs]
        event_log.check_banks(log, algorithms)
        replayed = event_log.replay_all(log, launched=_launched(log))
        for algorithm in algorithms:
            bank = bank_name(algorithm)
            for pcr, value in sorted(self.values[bank].items()):
                count = sum(event.pcr == pcr for event in events)
                event_log.check_pcr_replay(bank, pcr, value, replayed[algorithm][pcr], events=count)
        self.proven.append("the event log explains every quoted PCR")
        covered = frozenset.intersection(*(frozenset(pcrs) for pcrs in self.values.values() if pcrs))
        outside = sorted({event.pcr for event in events} - covered)
        if outside:
            numbers = ", ".join(map(str, outside))
            self.unchecked.append(
                f"the quote does not cover PCR {numbers}: what the log says of them is ignored"
            )
        self.survey = survey(log, covered)
        self.reasons.extend(self.survey.findings)


def _launched(log: EventLog) -> bool:
    return any(event.pcr in event_log.LAUNCH_PCRS for event in event_log.extending_events(log))


def _replayed(info: TPMS_QUOTE_INFO, log: EventLog) -> Values:
    """Return the values of the quoted PCRs to which the log leads."""
    algorithms = [selection.hash for selection in info.pcrSelect if selection.pcrs]
    event_log.check_banks(log, algorithms)
    replayed = event_log.replay_all(log, launched=_launched(log))
    return {
        bank_name(selection.hash): {pcr: replayed[selection.hash][pcr] for pcr in selection.pcrs}
        for selection in info.pcrSelect
        if selection.pcrs
    }


def recognise(data: bytes) -> str:
    """Return which field of `Files` a file is for, by its content: attest, signature, key, pcr_file or log.

    Errors: FormatError when it is none of them.
    """
    if data.startswith(_MAGIC):
        return "attest"
    if data.startswith((b"-----BEGIN", b"\x30\x82", b"\x30\x59", b"\x30\x76")):
        return "key"
    readers: dict[str, Callable[[bytes], object]] = {
        "signature": quote.read_signature,
        "key": keys.read_public,
        "pcr_file": read_pcr_file,
        "log": event_log.read_event_log,
    }
    for name, reader in readers.items():
        try:
            reader(data)
        except (FormatError, AttestationError):
            continue
        return name
    raise FormatError("file", "", "neither quote, signature, key, PCR values nor event log")


def read_key(data: bytes) -> tuple[PublicKey, bool]:
    """Return the attestation key in PEM, DER or a TPM2B_PUBLIC, and whether its attributes could be judged.

    Errors: AttestationError when a public area is not that of an attestation key; FormatError for any other bytes.
    """
    bare = _bare_key(data)
    if bare is not None:
        problem = key_problem(bare)
        if problem is not None:
            raise AttestationError("ak_public", f"the file holds {problem}")
        assert isinstance(bare, (ec.EllipticCurvePublicKey, rsa.RSAPublicKey))
        return bare, False
    public = keys.read_public(data)
    keys.check_ak_attributes(public)
    return keys.public_key(public, "ak_public"), True


def _bare_key(data: bytes) -> object | None:
    try:
        if data.lstrip().startswith(b"-----BEGIN"):
            return load_pem_public_key(data)
        return load_der_public_key(data) if data.startswith(b"\x30") else None
    except (ValueError, UnsupportedAlgorithm) as error:
        raise FormatError("key", "", f"not a public key: {error}") from error


def read_pcr_file(data: bytes) -> dict[str, dict[int, bytes]]:
    """Return {bank: {PCR: value}} from what `tpm2_quote -o` writes; FormatError for anything else.

    The file is the C structures TPML_PCR_SELECTION and a number of TPML_DIGEST, little-endian, in the order of the
    selection.
    """
    if len(data) < _SELECTION_STRUCT.size + _COUNT.size:
        raise FormatError(_WHAT, "", f"{len(data)} bytes are too few")
    count, *fields = _SELECTION_STRUCT.unpack_from(data)
    if count > _SELECTIONS_MAX:
        raise LimitError(_WHAT, "", f"{count} selections, at most {_SELECTIONS_MAX}")
    digests = _digests(data)
    values: dict[str, dict[int, bytes]] = {}
    for number in range(count):
        algorithm, size, bitmap = fields[3 * number : 3 * number + 3]
        bank = bank_name(algorithm)
        if algorithm not in HASH_BYTES or bank in values or size > len(bitmap):
            raise FormatError(_WHAT, f"selection {number}", f"{bank} is no bank, or stands twice")
        pcrs = [pcr for pcr in range(8 * size) if bitmap[pcr // 8] >> pcr % 8 & 1]
        if len(digests) < len(pcrs) or any(pcr >= PCR_COUNT for pcr in pcrs):
            raise FormatError(_WHAT, f"selection {number}", "there are fewer values than PCRs")
        values[bank] = {pcr: digests.pop(0) for pcr in pcrs}
        if any(len(value) != HASH_BYTES[algorithm] for value in values[bank].values()):
            raise FormatError(_WHAT, bank, "a value has another size than those of its bank")
    if digests:
        raise FormatError(_WHAT, "", f"{len(digests)} values more than PCRs")
    return values


def write_pcr_file(values: Values) -> bytes:
    """Return the file of PCR values that `tpm2_quote -o` would write for {bank: {PCR: value}}."""
    fields: list[int | bytes] = []
    digests: list[bytes] = []
    for bank, pcrs in values.items():
        bitmap = sum(1 << pcr for pcr in pcrs).to_bytes(_BITMAP_BYTES, "little")
        fields += [BANK_NAMES[bank], PCR_COUNT // 8, bitmap]
        digests += [value for _, value in sorted(pcrs.items())]
    fields += [0, 0, b""] * (_SELECTIONS_MAX - len(values))
    lists = [digests[at : at + _DIGESTS_PER_LIST] for at in range(0, len(digests), _DIGESTS_PER_LIST)]
    data = _SELECTION_STRUCT.pack(len(values), *fields) + _COUNT.pack(len(lists))
    for each in lists:
        sized = [part for value in each for part in (len(value), value)]
        data += _DIGEST_LIST.pack(len(each), *sized, *[0, b""] * (_DIGESTS_PER_LIST - len(each)))
    return data


def _digests(data: bytes) -> list[bytes]:
    (lists,) = _COUNT.unpack_from(data, _SELECTION_STRUCT.size)
    start = _SELECTION_STRUCT.size + _COUNT.size
    if lists > _LISTS_MAX or len(data) != start + lists * _DIGEST_LIST.size:
        raise FormatError(_WHAT, "", f"{lists} lists of values do not fill the {len(data)} bytes")
    digests = []
    for number in range(lists):
        count, *fields = _DIGEST_LIST.unpack_from(data, start + number * _DIGEST_LIST.size)
        if count > _DIGESTS_PER_LIST:
            raise FormatError(_WHAT, f"list {number}", f"{count} values, at most {_DIGESTS_PER_LIST}")
        for size, value in zip(fields[0 : 2 * count : 2], fields[1 : 2 * count : 2], strict=True):
            if size > len(value):
                raise FormatError(_WHAT, f"list {number}", f"a value of {size} bytes")
            digests.append(value[:size])
    return digests
