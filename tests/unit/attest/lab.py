"""A small host for the verifier's tests: a real simulated TPM, a vendor, published software, a boot that measures it.

A boot is a list of `Step`s; a test changes the list, the log or the evidence, and asks the verifier.
"""

import hashlib
import struct
from datetime import UTC, datetime

import attrs

from sim.attest.credential import make_challenge
from sim.attest.evidence import Evidence
from sim.attest.policy import AppraisalPolicy
from sim.attest.verifier import Verifier
from sim.core.rng import Rng
from sim.image.efi_lists import OWNER, encode_signature_lists
from sim.image.manifest import ReferenceComponent, ReferenceLoader, ReferenceManifest
from sim.kernel.quoting import HOST_ATTESTATION_KEY
from sim.tpm.client import TpmClient
from sim.tpm.client_sessions import Auth, SessionClient, password
from sim.tpm.constants import TPM_ALG, TPM_CC, TPM_RH, TPM_SE
from sim.tpm.eventlog import EV, EventLogWriter
from sim.tpm.hashing import BANK_NAMES
from sim.tpm.manufacture import EK_ECC_CERTIFICATE_INDEX, TpmVendor
from sim.tpm.tagged import EsxTag, encode_tagged
from sim.tpm.templates import EK_ECC

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NONCE = bytes(range(32))
QUOTED = (*range(8), *range(11, 15), *range(17, 23))
SHA256 = TPM_ALG.SHA256.value
ALL_BANKS = (TPM_ALG.SHA1.value, SHA256, TPM_ALG.SHA384.value)

GLOBAL = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c")
DATABASE = bytes.fromhex("cbb219d73a3d9645a3bcdad00e67656f")
SIGNER = b"certificate of the signer of early modules"
AUTHORITY = OWNER + b"loader authority"
LOADERS = {"safeboot64.efi": b"the first loader", "mboot64.efi": b"the second loader"}
CORE = {name: f"core module {name}".encode() for name in ("b.b00", "k.b00", "s.v00", "sb.v00")}
UPDATE = {"esxupdt.v00": b"update module"}
STATIC = {name: f"driver {name}".encode() for name in ("net.v00", "scsi.v00", "imgdb.tgz", "state.tgz")}
OPTIONS = {"jumpstrt.gz": b"jump", "useropts.gz": b"\n", "features.gz": b"\0"}
COMMAND_LINE = b"b.b00 execInstalledOnly=FALSE"
CHALLENGES = {}
"""What the laboratory's verifier asked, by the credential that it sent."""


@attrs.frozen
class Step:
    """One measurement: `over` is what is hashed if that is not the event's data."""

    pcr: int
    type: int
    data: bytes
    over: bytes | None = None
    locality: int = 0


def variable(name, content, namespace=GLOBAL):
    return namespace + struct.pack("<QQ", len(name), len(content)) + name.encode("utf-16-le") + content


def keys(*certificates):
    """The content of a Secure Boot variable with these certificates."""
    return encode_signature_lists(certificates)


def tagged(pcr, tag, body, over=None, locality=0):
    return Step(pcr, EV.EVENT_TAG, encode_tagged(tag, body), body if over is None else over, locality)


def module(pcr, name, content, locality=0):
    tag = EsxTag.BOOT_OPT if name.endswith(".gz") else EsxTag.MOD
    return tagged(pcr, tag, name.encode() + b"\0", content, locality)


def firmware_steps(secure_boot=True):
    steps = [
        Step(0, EV.S_CRTM_VERSION, "1.2.3".encode("utf-16-le") + b"\0\0"),
        Step(0, EV.EFI_PLATFORM_FIRMWARE_BLOB, struct.pack("<QQ", 0xFF000000, 9), b"firmware!"),
        Step(7, EV.EFI_VARIABLE_DRIVER_CONFIG, variable("SecureBoot", bytes([secure_boot]))),
        Step(7, EV.EFI_VARIABLE_DRIVER_CONFIG, variable("PK", keys(b"platform key"))),
        Step(7, EV.EFI_VARIABLE_DRIVER_CONFIG, variable("KEK", keys(b"exchange key"))),
        Step(7, EV.EFI_VARIABLE_DRIVER_CONFIG, variable("db", keys(b"loader authority"), DATABASE)),
        Step(7, EV.EFI_VARIABLE_DRIVER_CONFIG, variable("dbx", b"", DATABASE)),
        Step(7, EV.SEPARATOR, bytes(4)),
        Step(1, EV.EFI_VARIABLE_BOOT, variable("BootOrder", b"\0\0")),
        Step(4, EV.EFI_ACTION, b"Calling EFI Application from Boot Option"),
    ]
    steps += [Step(pcr, EV.SEPARATOR, bytes(4)) for pcr in range(7)]
    steps.append(Step(5, EV.EFI_GPT_EVENT, b"partition table"))
    if secure_boot:
        steps.append(Step(7, EV.EFI_VARIABLE_AUTHORITY, variable("db", AUTHORITY, DATABASE)))
    for content in LOADERS.values():
        steps.append(Step(4, EV.EFI_BOOT_SERVICES_APPLICATION, b"where it was loaded" + bytes(16), content))
    return steps


def exit_steps():
    return [
        Step(5, EV.EFI_ACTION, b"Exit Boot Services Invocation"),
        Step(5, EV.EFI_ACTION, b"Exit Boot Services Returned with Success"),
    ]


def esx_steps():
    steps = []
    for name, content in CORE.items():
        if name in ("b.b00", "k.b00"):
            steps.append(tagged(13, EsxTag.VERSION, b"8.0.3" + name.encode() + b"\0"))
        steps.append(module(12, name, content))
    steps += [module(11, name, content) for name, content in UPDATE.items()]
    steps += [module(13, name, content) for name, content in STATIC.items()]
    steps += [module(14, name, content) for name, content in OPTIONS.items()]
    return [*steps, tagged(14, EsxTag.SIGNER, SIGNER), tagged(14, EsxTag.CMD_OPT, COMMAND_LINE)]


def launch_steps():
    """What a TXT launch measures after its hash sequence, with ESXi's modules in PCR 17 and 19 to 21."""
    sinit = [(0x40B, struct.pack("<I", 1)), (0x40C, bytes(4)), (0x40E, b"\0")]
    steps = [Step(17, kind, data, locality=3) for kind, data in sinit]
    steps.append(module(17, "b.b00", CORE["b.b00"], locality=3))
    steps += [Step(18, kind, data, locality=3) for kind, data in ((0x410, b"key"), (0x413, b"\0"))]
    steps += [module(19, name, CORE[name], locality=2) for name in ("k.b00", "s.v00", "sb.v00")]
    steps += [module(19, name, content, locality=2) for name, content in UPDATE.items()]
    steps += [module(20, name, content, locality=2) for name, content in STATIC.items()]
    steps += [module(21, name, content, locality=2) for name, content in OPTIONS.items()]
    return [*steps, tagged(21, EsxTag.CMD_OPT, COMMAND_LINE, locality=2)]


def boot_steps(secure_boot=True):
    return [*firmware_steps(secure_boot), *esx_steps(), *exit_steps()]


def replaced(steps, old, new):
    """The steps with the one step that equals `old` replaced by `new` (a step, or a list of them)."""
    assert steps.count(old) == 1
    position = steps.index(old)
    return [*steps[:position], *(new if isinstance(new, list) else [new]), *steps[position + 1 :]]


def find(steps, text):
    """The one step whose data hold `text`."""
    found = [step for step in steps if text in step.data]
    assert len(found) == 1, (text, len(found))
    return found[0]


def manifest():
    def component(name, content):
        digests = tuple(hashlib.new(kind, content).digest() for kind in ("sha256", "sha384"))
        return ReferenceComponent(
            name=name,
            digests=digests,
            vib_name="esx-base",
            vib_version="8.0.3-1",
            vib_vendor="VMware",
            level="VMwareCertified",
        )

    files = {**CORE, **UPDATE, **STATIC, **OPTIONS}
    return ReferenceManifest(
        components=tuple(component(name, content) for name, content in files.items()),
        loaders=tuple(
            ReferenceLoader(name=name, digests=(hashlib.sha256(content).digest(),))
            for name, content in LOADERS.items()
        ),
        signers=(SIGNER,),
        orders=(tuple(files),),
        releases=((("esx-base", "8.0.3-1"),),),
    )


class Machine:
    """A TPM of a vendor, and whatever boots on it."""

    def __init__(self, vendor, serial="T1"):
        self.vendor = vendor
        self.tpm = vendor.make(serial=serial, rng=Rng(7).child(serial))
        self.client = TpmClient(self.tpm.execute)
        self.log = b""

    def power_on(self, locality=0, orderly=False):
        if orderly:
            self.client.shutdown()
        self.tpm.clock.now += 60_000_000_000
        self.tpm.init()
        TpmClient(self.tpm.execute, locality=locality).startup()

    def boot(self, steps=None, *, locality=0, banks=ALL_BANKS, launch=None, orderly=False):
        """Start the TPM, measure the steps (and those of a launch), and keep the log."""
        self.power_on(locality, orderly)
        writer = EventLogWriter(banks)
        if locality:
            writer.startup_locality(locality)
        for step in boot_steps() if steps is None else steps:
            self.measure(writer, step)
        if launch is not None:
            self.tpm.hash_start()
            self.tpm.hash_data(b"SINIT")
            self.tpm.hash_end()
            writer.measure(17, 0x402, bytes(4), b"SINIT")
            for step in launch:
                self.measure(writer, step)
        self.log = writer.to_bytes()
        return self

    def measure(self, writer, step):
        content = step.data if step.over is None else step.over
        writer.measure(step.pcr, step.type, step.data, content)
        self.extend(step.pcr, content, step.locality)

    def extend(self, pcr, content, locality=0):
        digests = {
            bank: hashlib.new(name, content).digest()
            for name, bank in BANK_NAMES.items()
            if name != "sm3_256"
        }
        TpmClient(self.tpm.execute, locality=locality).pcr_extend(pcr, digests)

    def evidence(self, nonce=NONCE, pcrs=QUOTED, banks=("sha256",), key=None, **changes):
        """Evidence as a host agent gathers it, by the key of a (template, hierarchy), with `changes` to its fields."""
        selection = {BANK_NAMES[bank]: tuple(pcrs) for bank in banks}
        ek, ek_public, _ = self.client.create_primary(EK_ECC)
        ak, ak_public, _ = self.client.create_primary(*(key or (HOST_ATTESTATION_KEY,)))
        challenge = challenge_for(ek_public, ak_public)
        secret = activate(self.tpm, ak, ek, challenge)
        attest, signature = self.client.quote(ak, nonce, selection) if key is None else (b"", b"")
        self.client.flush(ak)
        self.client.flush(ek)
        values = self.client.pcr_read(selection)
        bundle = Evidence(
            ek_public=ek_public,
            ek_certificate_der=self.client.nv_read(EK_ECC_CERTIFICATE_INDEX),
            ak_public=ak_public,
            credential_blob=challenge.credential_blob,
            encrypted_secret=challenge.encrypted_secret,
            activated_secret=secret,
            attest=attest,
            signature=signature,
            pcr_values={bank: values[BANK_NAMES[bank]] for bank in banks},
            event_log=self.log,
        )
        return attrs.evolve(bundle, **changes)


def challenge_for(ek_public, ak_public):
    """The challenge of the laboratory's verifier for two keys, always the same one; remembered by its credential."""
    challenge = make_challenge(ek_public, ak_public, Rng(11).stream("challenge"))
    CHALLENGES[challenge.credential_blob] = challenge
    return challenge


def activate(tpm, ak, ek, challenge):
    """Open a challenge with two loaded keys of a TPM."""
    sessions = SessionClient(tpm.execute, Rng(12).stream("nonces"))
    session = sessions.start(TPM_SE.POLICY)
    try:
        sessions.call(TPM_CC.PolicySecret, (TPM_RH.ENDORSEMENT, session.handle), b"", b"", b"", 0)
        auths = [password(), Auth(session=session)]
        credential = (challenge.credential_blob, challenge.encrypted_secret)
        return sessions.call(TPM_CC.ActivateCredential, (ak, ek), *credential, auths=auths)[0]
    finally:
        sessions.call(TPM_CC.FlushContext, (), session.handle)


def answered(evidence, ak_public, **changes):
    """The evidence as of a host whose TPM holds this attestation key too, and opened a challenge for it."""
    challenge = challenge_for(evidence.ek_public, ak_public)
    credential = {
        "ak_public": ak_public,
        "credential_blob": challenge.credential_blob,
        "encrypted_secret": challenge.encrypted_secret,
        "activated_secret": challenge.secret,
    }
    return attrs.evolve(evidence, **credential, **changes)


class Lab:
    """A vendor, its first machine, and a verifier that knows both."""

    def __init__(self):
        self.vendor = TpmVendor(Rng(1))
        self.machine = Machine(self.vendor)

    def policy(self, **changes):
        policy = AppraisalPolicy(
            vendor_roots=(self.vendor.root_certificate_der,), manifest=manifest(), now=NOW
        )
        return attrs.evolve(policy, **changes)

    def appraise(
        self, evidence, nonce=NONCE, challenge=None, *, last=None, rebooted=None, resumes=0, **policy
    ):
        """Judge evidence as the answer to a challenge (default: the one whose credential it shows)."""
        challenge = challenge or CHALLENGES.get(evidence.credential_blob) or next(iter(CHALLENGES.values()))
        return Verifier(self.policy(**policy)).appraise(
            evidence, nonce, challenge, last=last, rebooted=rebooted, resumes=resumes
        )


def codes(verdict):
    return [reason.code for reason in verdict.reasons]
