"""The software side of sessions: HMACs, salts, parameter encryption and policies as a client computes them.

Models: password, HMAC and policy authorisations; sessions that are bound, salted (RSA or ECC) or both; encryption of
the first parameter both ways; checking of every response HMAC.  Key derivation and CFB mode are written out here
once more, apart from the device's own, so that each checks the other.
Leaves out: retries, and the names of objects that the caller does not know (they are asked of the TPM).
Sources: TPM 2.0 Library part 1, chapters 18, 19 and 21, annexes B.10.2 and C.6.1.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Callable, Sequence
from typing import Any

from attrs import define, frozen
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from sim.core.rng import Stream
from sim.errors import FormatError, VmksimError
from sim.tpm.client import TpmError
from sim.tpm.constants import TPM_ALG, TPM_CC, TPM_HT, TPM_RH, TPM_SE, TPM_ST, TPMA_SESSION
from sim.tpm.crypto.ecc import CURVES, private_scalar, public_point, shared_x
from sim.tpm.crypto.rsa import DEFAULT_EXPONENT, oaep_encode, public_operation
from sim.tpm.requests import CommandSpec
from sim.tpm.tables import COMMANDS
from sim.tpm.wire import (
    TPMS_AUTH_COMMAND,
    TPMS_AUTH_RESPONSE,
    TPMS_ECC_PARMS,
    TPMS_ECC_POINT,
    TPMT_PUBLIC,
    UINT32,
    codec_of,
)
from sim.tpm.wire.session import TPMT_SYM_DEF

__all__ = [
    "AES_128_CFB",
    "NO_CIPHER",
    "Auth",
    "ClientSession",
    "ResponseForgedError",
    "SessionClient",
    "kdf_a",
    "password",
    "xor_with",
]

_HEADER = struct.Struct(">HII")
_HASHES = {
    TPM_ALG.SHA1.value: "sha1",
    TPM_ALG.SHA256.value: "sha256",
    TPM_ALG.SHA384.value: "sha384",
    TPM_ALG.SHA512.value: "sha512",
}
_BLOCK = 16
_CONTINUE = TPMA_SESSION.continueSession.value
_DECRYPT = TPMA_SESSION.decrypt.value
_ENCRYPT = TPMA_SESSION.encrypt.value
_AUTH_RESPONSE = codec_of(TPMS_AUTH_RESPONSE)
NO_CIPHER = TPMT_SYM_DEF(algorithm=TPM_ALG.NULL.value, keyBits=None, mode=None)
AES_128_CFB = TPMT_SYM_DEF(algorithm=TPM_ALG.AES.value, keyBits=128, mode=TPM_ALG.CFB.value)


class ResponseForgedError(VmksimError):
    """A response HMAC is wrong: the response does not come from the TPM of the session."""


def xor_with(hash_alg: int) -> TPMT_SYM_DEF:
    """Return the XOR obfuscation with a hash."""
    return TPMT_SYM_DEF(algorithm=TPM_ALG.XOR.value, keyBits=int(hash_alg), mode=None)


@define(kw_only=True)
class ClientSession:
    """What the client remembers of a session."""

    handle: int
    hash_alg: int
    symmetric: TPMT_SYM_DEF
    key: bytes
    nonce_tpm: bytes
    bound: tuple[bytes, bytes] | None = None
    """Name and authorisation value of the entity that an HMAC session is bound to."""


@frozen(kw_only=True)
class Auth:
    """One session of a command: `value` is the authorisation value of its entity."""

    session: ClientSession | None = None
    value: bytes = b""
    attributes: int = _CONTINUE
    use_value: bool | None = None
    """Whether the value enters the HMAC; None: as an HMAC session does, and a policy session does not."""
    plain: bool = False
    """Send the value in the clear (PolicyPassword)."""
    new_value: bytes | None = None
    """The value that holds after the command, where the command changes it."""


def password(value: bytes = b"") -> Auth:
    """Return a password authorisation."""
    return Auth(value=value)


class SessionClient:
    """Sends commands with sessions through `transmit(command, locality=...)`; nonces and salts come from `chance`."""

    def __init__(self, transmit: Callable[..., bytes], chance: Stream, locality: int = 0) -> None:
        self.transmit = transmit
        self.chance = chance
        self.locality = locality
        self.names: dict[int, bytes] = {}

    def start(
        self,
        kind: TPM_SE = TPM_SE.HMAC,
        *,
        symmetric: TPMT_SYM_DEF = NO_CIPHER,
        hash_alg: int = TPM_ALG.SHA256,
        bind: int = TPM_RH.NULL,
        bind_value: bytes = b"",
        salt_key: tuple[int, TPMT_PUBLIC] | None = None,
        auths: Sequence[Auth] = (),
    ) -> ClientSession:
        """Begin a session."""
        size = hashlib.new(_HASHES[int(hash_alg)]).digest_size
        nonce = self.chance.bytes(size)
        salt, encrypted = self._salt(salt_key[1]) if salt_key is not None else (b"", b"")
        key_handle = salt_key[0] if salt_key is not None else TPM_RH.NULL.value
        handle, nonce_tpm = self.call(
            TPM_CC.StartAuthSession,
            (key_handle, int(bind)),
            nonce,
            encrypted,
            int(kind),
            symmetric,
            int(hash_alg),
            auths=auths,
        )
        key = b""
        bound = None
        if bind != TPM_RH.NULL or salt_key is not None:
            secret = bind_value.rstrip(b"\0") + salt
            key = kdf_a(int(hash_alg), secret, b"ATH", nonce_tpm, nonce, size * 8)
        if bind != TPM_RH.NULL and kind is TPM_SE.HMAC:
            bound = (self.name_of(int(bind)), bind_value.rstrip(b"\0"))
        return ClientSession(
            handle=handle,
            hash_alg=int(hash_alg),
            symmetric=symmetric,
            key=key,
            nonce_tpm=nonce_tpm,
            bound=bound,
        )

    def call(
        self, code: TPM_CC, handles: Sequence[int], *parameters: Any, auths: Sequence[Auth] = ()
    ) -> tuple[Any, ...]:
        """Run a command under `auths` and return its results, a handle first; `TpmError` if it is refused."""
        spec = COMMANDS[code]
        encoded = b"".join(
            codec.encode(value) for codec, value in zip(spec.parameters, parameters, strict=True)
        )
        call = _Call(self, spec, tuple(int(handle) for handle in handles), auths)
        return call.results(self.transmit(call.command(encoded), locality=self.locality))

    def name_of(self, handle: int) -> bytes:
        """Return the Name of a handle's entity, asked of the TPM where it is not known yet."""
        kind = handle >> 24
        if kind not in (TPM_HT.TRANSIENT, TPM_HT.PERSISTENT, TPM_HT.NV_INDEX):
            return handle.to_bytes(4, "big")
        if handle in self.names:
            return self.names[handle]
        code = TPM_CC.NV_ReadPublic if kind == TPM_HT.NV_INDEX else TPM_CC.ReadPublic
        name: bytes = self.call(code, (handle,))[1]
        return name

    def _salt(self, public: TPMT_PUBLIC) -> tuple[bytes, bytes]:
        """Draw a salt and hide it for a key of the TPM; return it and what the TPM gets."""
        algorithm = _HASHES[public.nameAlg]
        size = hashlib.new(algorithm).digest_size
        if isinstance(public.parameters, TPMS_ECC_PARMS):
            assert isinstance(public.unique, TPMS_ECC_POINT)
            curve = CURVES[public.parameters.curveID]
            scalar = private_scalar(curve, self.chance.bytes(curve.size + 8))
            x, y = public_point(curve, scalar)
            theirs = int.from_bytes(public.unique.x, "big"), int.from_bytes(public.unique.y, "big")
            shared = shared_x(curve, scalar, theirs)
            assert shared is not None
            point = TPMS_ECC_POINT(x=curve.encode(x), y=curve.encode(y))
            seed = struct.pack(">I", 1) + curve.encode(shared) + b"SECRET\0"
            party_v = curve.encode(theirs[0])
            return hashlib.new(algorithm, seed + point.x + party_v).digest(), point.encode()
        assert isinstance(public.unique, bytes)
        salt = self.chance.bytes(size)
        padded = oaep_encode(public.nameAlg, b"SECRET\0", salt, len(public.unique), self.chance)
        assert padded is not None
        exponent = getattr(public.parameters, "exponent", 0) or DEFAULT_EXPONENT
        return salt, public_operation(int.from_bytes(public.unique, "big"), exponent, padded)


class _Call:
    """One command on its way, with the nonces of its sessions."""

    def __init__(
        self, client: SessionClient, spec: CommandSpec, handles: tuple[int, ...], auths: Sequence[Auth]
    ) -> None:
        self.client = client
        self.spec = spec
        self.handles = handles
        self.auths = list(auths)
        self.auths += [password()] * (spec.authorised_count - len(self.auths))
        self.authorised = [
            handle for handle, declared in zip(handles, spec.handles, strict=True) if declared.authorised
        ]
        self.nonces = [
            client.chance.bytes(len(auth.session.nonce_tpm)) if auth.session is not None else b""
            for auth in self.auths
        ]

    def command(self, parameters: bytes) -> bytes:
        """Return the bytes of the command."""
        body = b"".join(map(UINT32.encode, self.handles))
        if not self.auths:
            body += parameters
            return _HEADER.pack(TPM_ST.NO_SESSIONS, _HEADER.size + len(body), self.spec.code) + body
        parameters = self._hide(parameters)
        signed = any(auth.session is not None for auth in self.auths)
        names = b"".join(map(self.client.name_of, self.handles)) if signed else b""
        described = self.spec.code.to_bytes(4, "big") + names + parameters
        area = b"".join(self._area(number, described) for number in range(len(self.auths)))
        body += UINT32.encode(len(area)) + area + parameters
        return _HEADER.pack(TPM_ST.SESSIONS, _HEADER.size + len(body), self.spec.code) + body

    def _area(self, number: int, described: bytes) -> bytes:
        auth, nonce = self.auths[number], self.nonces[number]
        session = auth.session
        if session is None:
            return TPMS_AUTH_COMMAND(
                sessionHandle=TPM_RH.PW.value, nonce=b"", sessionAttributes=0, hmac=auth.value
            ).encode()
        if auth.plain:
            mac = auth.value
        else:
            digest = hashlib.new(_HASHES[session.hash_alg], described).digest()
            tail = nonce + session.nonce_tpm + self._foreign(number) + bytes([auth.attributes])
            mac = self._mac(number, auth.value, digest + tail)
        return TPMS_AUTH_COMMAND(
            sessionHandle=session.handle, nonce=nonce, sessionAttributes=auth.attributes, hmac=mac
        ).encode()

    def _foreign(self, number: int) -> bytes:
        """Return the nonces of other sessions that encrypt, for the first session's HMAC."""
        if number:
            return b""
        first_decrypt = self._using(_DECRYPT)
        first_encrypt = self._using(_ENCRYPT)
        chosen = [each for each in (first_decrypt, first_encrypt) if each not in (None, 0)]
        sessions = [self.auths[each].session for each in dict.fromkeys(chosen) if each is not None]
        return b"".join(session.nonce_tpm for session in sessions if session is not None)

    def _using(self, flag: int) -> int | None:
        found = [
            n for n, auth in enumerate(self.auths) if auth.session is not None and auth.attributes & flag
        ]
        return found[0] if found else None

    def _mac(self, number: int, value: bytes, message: bytes) -> bytes:
        auth = self.auths[number]
        session = auth.session
        assert session is not None
        key = session.key
        if number < len(self.authorised) and self._takes_value(number, value):
            key += value.rstrip(b"\0")
        is_policy = session.handle >> 24 == TPM_HT.POLICY_SESSION
        if not key and is_policy:
            return b""
        return hmac.digest(key, message, _HASHES[session.hash_alg])

    def _takes_value(self, number: int, value: bytes) -> bool:
        auth = self.auths[number]
        session = auth.session
        assert session is not None
        if auth.use_value is not None:
            return auth.use_value
        if session.handle >> 24 == TPM_HT.POLICY_SESSION:
            return False
        if session.bound is None:
            return True
        return session.bound != (self.client.name_of(self.authorised[number]), value.rstrip(b"\0"))

    def _crypt(self, number: int, data: bytes, *, decrypt: bool, value: bytes) -> bytes:
        """Encrypt a parameter under a session, or decrypt a result (then the TPM's nonce is the newer one)."""
        session = self.auths[number].session
        assert session is not None
        secret = session.key + (value.rstrip(b"\0") if number < len(self.authorised) else b"")
        ours, theirs = self.nonces[number], session.nonce_tpm
        newer, older = (theirs, ours) if decrypt else (ours, theirs)
        if session.symmetric.algorithm == TPM_ALG.XOR:
            assert session.symmetric.keyBits is not None
            mask = kdf_a(session.symmetric.keyBits, secret, b"XOR", newer, older, len(data) * 8)
            return bytes(a ^ b for a, b in zip(data, mask, strict=True))
        if session.symmetric.algorithm != TPM_ALG.AES:  # the TPM refuses such a session for this use
            return data
        bits = session.symmetric.keyBits or 0
        material = kdf_a(session.hash_alg, secret, b"CFB", newer, older, bits + _BLOCK * 8)
        return _cfb(material[: bits // 8], material[bits // 8 :], data, decrypt=decrypt)

    def _hide(self, parameters: bytes) -> bytes:
        number = self._using(_DECRYPT)
        if number is None or len(parameters) < 2:
            return parameters
        end = 2 + int.from_bytes(parameters[:2], "big")
        hidden = self._crypt(number, parameters[2:end], decrypt=False, value=self.auths[number].value)
        return parameters[:2] + hidden + parameters[end:]

    def results(self, response: bytes) -> tuple[Any, ...]:
        """Check a response and return its results."""
        what = f"response to TPM2_{self.spec.code.name}"
        if len(response) < _HEADER.size:
            raise FormatError(what, "header", f"{len(response)} bytes, want at least {_HEADER.size}")
        tag, size, rc = _HEADER.unpack_from(response)
        if size != len(response):
            raise FormatError(what, "header", f"size {size}, but there are {len(response)} bytes")
        if rc:
            raise TpmError(rc, self.spec.code.name)
        at = _HEADER.size
        results: list[Any] = []
        if self.spec.returns_handle:
            handle, at = UINT32.decode(response, at, size)
            results.append(handle)
        parameters = response[at:]
        if tag == TPM_ST.SESSIONS:
            length, at = UINT32.decode(response, at, size)
            parameters = self._opened(response[at : at + length], response, at + length)
        at = 0
        for codec in self.spec.results:
            value, at = codec.decode(parameters, at, len(parameters))
            results.append(value)
        if at != len(parameters):
            raise FormatError(what, "parameters", f"{len(parameters) - at} bytes are left over")
        return tuple(results)

    def _opened(self, parameters: bytes, response: bytes, at: int) -> bytes:
        """Check the answers of all sessions, take over their nonces, and decrypt the first result."""
        described = bytes(4) + self.spec.code.to_bytes(4, "big") + parameters
        for number, auth in enumerate(self.auths):
            answer, at = _AUTH_RESPONSE.decode(response, at, len(response))
            session = auth.session
            if session is None:
                continue
            session.nonce_tpm = answer.nonce
            digest = hashlib.new(_HASHES[session.hash_alg], described).digest()
            tail = answer.nonce + self.nonces[number] + bytes([answer.sessionAttributes])
            value = auth.value if auth.new_value is None else auth.new_value
            expected = b"" if auth.plain else self._mac(number, value, digest + tail)
            if not hmac.compare_digest(expected, answer.hmac):
                raise ResponseForgedError(self.spec.code.name, number + 1)
        number_ = self._using(_ENCRYPT)
        if number_ is None:
            return parameters
        auth = self.auths[number_]
        value = auth.value if auth.new_value is None else auth.new_value
        end = 2 + int.from_bytes(parameters[:2], "big")
        return (
            parameters[:2]
            + self._crypt(number_, parameters[2:end], decrypt=True, value=value)
            + parameters[end:]
        )


def kdf_a(  # noqa: PLR0917 - the order of the library
    hash_alg: int, key: bytes, label: bytes, context_u: bytes, context_v: bytes, bits: int
) -> bytes:
    """Derive `bits` (a multiple of 8) from a key."""
    derived, counter = b"", 0
    while len(derived) * 8 < bits:
        counter += 1
        mac = hmac.new(key, digestmod=_HASHES[hash_alg])
        mac.update(
            struct.pack(">I", counter) + label + b"\0" + context_u + context_v + struct.pack(">I", bits)
        )
        derived += mac.digest()
    return derived[: bits // 8]


def _cfb(key: bytes, iv: bytes, data: bytes, *, decrypt: bool) -> bytes:
    """Encrypt or decrypt with AES in CFB mode, block by block."""
    block = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305 - one block at a time
    result = b""
    for at in range(0, len(data), _BLOCK):
        piece = data[at : at + _BLOCK]
        out = bytes(a ^ b for a, b in zip(piece, block.update(iv), strict=False))
        iv = piece if decrypt else out
        result += out
    return result
