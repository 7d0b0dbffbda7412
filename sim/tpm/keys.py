"""Loaded objects, their names, and the signatures that the attestation key makes.

Models: what a slot holds; names and qualified names; ECDSA signatures, made deterministic (RFC 6979) so that a run
repeats bit for bit.
Leaves out: how keys are made (`sim.tpm.creation`) and which templates are allowed (`sim.tpm.object_rules`).
Sources: TPM 2.0 Library part 1, 16 (names) and 23 (object structure); FIPS 186-5.
"""

from __future__ import annotations

from attrs import frozen

from sim.tpm.constants import TPM_ALG, TPM_ECC, TPMA_OBJECT
from sim.tpm.crypto import ecc, rsa
from sim.tpm.crypto.kdf import kdf_a
from sim.tpm.hashing import algorithm_of_name, hash_bytes
from sim.tpm.wire import TPMS_RSA_PARMS, TPMS_SIGNATURE_ECC, TPMT_PUBLIC, TPMT_SIGNATURE
from sim.tpm.wire.private import TPMT_SENSITIVE

__all__ = [
    "LoadedObject",
    "ecc_scalar",
    "kdf_a",
    "name_of",
    "qualified_name",
    "rsa_numbers",
    "rsa_private",
    "sign_ecdsa",
]

_P256 = ecc.CURVES[TPM_ECC.NIST_P256]


@frozen(kw_only=True)
class LoadedObject:
    """An object in a slot; `private` is a prime (RSA), the scalar (ECC), the key or the sealed data."""

    public: TPMT_PUBLIC
    name: bytes
    qualified_name: bytes
    hierarchy: int
    auth: bytes
    private: bytes
    seed_value: bytes = b""
    """Of a storage key the seed that protects its children, of a symmetric object what hides its unique value."""
    public_only: bool = False
    external: bool = False
    """Whether it came through LoadExternal."""
    until_startup: bool = False
    """Whether it or an ancestor has stClear, so that no context of it outlives a Startup(CLEAR)."""

    @property
    def attributes(self) -> int:
        """The object attributes (TPMA_OBJECT bits)."""
        return self.public.objectAttributes

    @property
    def is_sequence(self) -> bool:
        """Whether this is a hash or HMAC sequence that only takes the place of an object."""
        return type(self) is not LoadedObject

    @property
    def is_parent(self) -> bool:
        """Whether it is a storage or derivation parent."""
        both = TPMA_OBJECT.restricted | TPMA_OBJECT.decrypt
        return self.attributes & both == both and not self.attributes & TPMA_OBJECT.sign

    @property
    def is_storage_parent(self) -> bool:
        """Whether it protects children by encryption."""
        return self.is_parent and self.public.type != TPM_ALG.KEYEDHASH

    @property
    def is_derivation_parent(self) -> bool:
        """Whether its children are derived from it."""
        return self.is_parent and self.public.type == TPM_ALG.KEYEDHASH

    @property
    def sensitive(self) -> TPMT_SENSITIVE:
        """The sensitive area."""
        return TPMT_SENSITIVE(
            sensitiveType=self.public.type,
            authValue=self.auth,
            seedValue=self.seed_value,
            sensitive=self.private,
        )


def name_of(public: TPMT_PUBLIC) -> bytes:
    """Return the name of an object: its name algorithm and the digest of its public area; empty without algorithm."""
    if public.nameAlg == TPM_ALG.NULL:
        return b""
    return public.nameAlg.to_bytes(2, "big") + hash_bytes(public.nameAlg, public.encode())


def qualified_name(parent: bytes, name: bytes) -> bytes:
    """Return the qualified name of an object under `parent` (a hierarchy's handle, or a qualified name)."""
    if not name:
        return b""
    hash_alg = algorithm_of_name(name)
    return name[:2] + hash_bytes(hash_alg, parent + name)


def rsa_numbers(public: TPMT_PUBLIC) -> tuple[int, int]:
    """Return modulus and exponent of an RSA key."""
    assert isinstance(public.parameters, TPMS_RSA_PARMS)
    assert isinstance(public.unique, bytes)
    return int.from_bytes(public.unique, "big"), public.parameters.exponent or rsa.DEFAULT_EXPONENT


def rsa_private(loaded: LoadedObject) -> rsa.RsaKey:
    """Return the private key of a loaded RSA object."""
    return rsa.need_key(rsa.rsa_key(*rsa_numbers(loaded.public), int.from_bytes(loaded.private, "big")))


def ecc_scalar(loaded: LoadedObject) -> int:
    """Return the private scalar of a loaded ECC object."""
    return int.from_bytes(loaded.private, "big")


def sign_ecdsa(private: bytes, hash_alg: int, message: bytes) -> TPMT_SIGNATURE:
    """Sign `message` with a P-256 scalar."""
    r, s = ecc.sign_ecdsa(_P256, int.from_bytes(private, "big"), hash_alg, hash_bytes(hash_alg, message))
    return TPMT_SIGNATURE(
        sigAlg=TPM_ALG.ECDSA.value,
        signature=TPMS_SIGNATURE_ECC(hash=hash_alg, signatureR=_P256.encode(r), signatureS=_P256.encode(s)),
    )
