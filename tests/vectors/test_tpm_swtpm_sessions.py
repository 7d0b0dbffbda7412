"""Sessions of every kind, used rightly and wrongly, on swtpm and on the device: the same codes and attributes."""

import struct

import pytest

from sim.tpm.client_sessions import AES_128_CFB, NO_CIPHER, Auth, ClientSession, password, xor_with
from sim.tpm.constants import TPM_ALG, TPM_CC, TPM_SE
from sim.tpm.templates import EK_RSA, SIGNING_KEY, STORAGE_PARENT
from sim.tpm.wire import TPMS_ECC_POINT, TPMS_SENSITIVE_CREATE, TPMT_HA
from sim.tpm.wire.session import TPMT_SYM_DEF

from .swtpm_peer import command, sized
from .swtpm_scenario import (
    AUDIT,
    CONTINUE,
    DECRYPT,
    ENCRYPT,
    EXCLUSIVE,
    LOCKOUT,
    NO_SECRETS,
    NULL,
    OWNER,
    RESET,
    compare,
    response_attributes,
)

pytestmark = pytest.mark.client

EXTEND = (TPMT_HA(hashAlg=11, digest=bytes(32)),)
PCR = 16


def all_kinds(play):
    for symmetric in (NO_CIPHER, AES_128_CFB, xor_with(11)):
        for hash_alg in (4, 11, 12, 13):
            for kind in TPM_SE:
                session = play.start(f"{kind.name} {hash_alg}", kind, symmetric=symmetric, hash_alg=hash_alg)
                play.flush(session)


def every_attribute(play):
    session = play.start()
    for attributes in range(256):
        auth = Auth(session=session, attributes=attributes)
        done = play.call(f"{attributes:02x}", TPM_CC.PCR_Extend, (PCR,), EXTEND, auths=[auth])
        if done is not None and not attributes & CONTINUE:
            session = play.start()
    play.flush(session)
    session = play.start("cipher", symmetric=AES_128_CFB)
    for attributes in (0x21, 0x41, 0x61, 0xA1, 0xE1, 0x81, 0x83, 0x85, 0x87, 0x01, 0x05, 0x03):
        auth = Auth(session=session, attributes=attributes)
        for code, given in (
            (TPM_CC.GetRandom, (8,)),
            (TPM_CC.StirRandom, (b"12345",)),
            (TPM_CC.ReadClock, ()),
            (TPM_CC.GetCapability, (6, 0x100, 1)),
        ):
            play.call(f"{attributes:02x}", code, (), *given, auths=[auth])
        play.call(f"twice {attributes:02x}", TPM_CC.GetRandom, (), 8, auths=[auth, auth])


def policy_sessions_in_other_roles(play):
    sessions = [play.start(kind.name, kind, symmetric=AES_128_CFB) for kind in (TPM_SE.POLICY, TPM_SE.TRIAL)]
    for attributes in (0x21, 0x41, 0x61, 0xA1, 0x81, 0x01):
        for session in sessions:
            auths = [Auth(session=session, attributes=attributes)]
            play.call("get", TPM_CC.GetRandom, (), 8, auths=auths)
            play.call("stir", TPM_CC.StirRandom, (), b"8", auths=auths)
            play.call("reset", TPM_CC.PCR_Reset, (PCR,), auths=auths)
            play.call("make", TPM_CC.CreatePrimary, (OWNER,), NO_SECRETS, SIGNING_KEY, b"", (), auths=auths)
    policy = sessions[0]
    play.call("assert", TPM_CC.PolicyCommandCode, (policy.handle,), TPM_CC.GetRandom)
    play.digest(policy)
    play.call("used", TPM_CC.GetRandom, (), 8, auths=[Auth(session=policy, attributes=0x41)])
    play.digest(policy)


def wrong_sessions(play):
    session = play.start()
    play.call("extra password", TPM_CC.GetRandom, (), 8, auths=[password()])
    play.call("two passwords", TPM_CC.PCR_Reset, (PCR,), auths=[password(), password()])
    play.call("wrong password", TPM_CC.PCR_Reset, (PCR,), auths=[password(b"x")])
    for handle in (0x02000033, 0x03000033, 0x03000000):
        absent = ClientSession(handle=handle, hash_alg=11, symmetric=NO_CIPHER, key=b"", nonce_tpm=bytes(32))
        play.call("absent", TPM_CC.PCR_Reset, (PCR,), auths=[Auth(session=absent)])
        play.call("absent second", TPM_CC.PCR_Reset, (PCR,), auths=[password(), Auth(session=absent)])
    forged = ClientSession(
        handle=session.handle, hash_alg=11, symmetric=NO_CIPHER, key=b"x", nonce_tpm=session.nonce_tpm
    )
    play.call("forged", TPM_CC.PCR_Reset, (PCR,), auths=[Auth(session=forged)])
    play.call("forged audit", TPM_CC.GetRandom, (), 3, auths=[Auth(session=forged, attributes=0x81)])
    for handle in (session.handle, 0x03000000, 0x03000040):
        play.raw(f"restart {handle:x}", command(TPM_CC.PolicyRestart, (handle,)))
    empty = struct.pack(">IHBH", session.handle, 0, 1, 0)
    sent = struct.pack(">HIIII", 0x8002, 27, TPM_CC.PCR_Reset, PCR, 9) + empty
    play.raw("no nonce", sent[:-9] + struct.pack(">IHBH", 0x02000005, 0, 1, 0))
    play.do("hmac left out", lambda: play.tpm.execute(sent)[:10], show=bytes.hex)
    for handle in (0x02000000, 0x02000001, 0x03000001, 0x02000040, 0x40000009):
        play.raw(f"flush {handle:x}", command(TPM_CC.FlushContext, (), handle.to_bytes(4, "big")))
    handle = (0x02000000).to_bytes(4, "big")
    play.raw("flush with a session", command(TPM_CC.FlushContext, (), handle, [b""]))


def several_sessions(play):
    plain = play.start("plain")
    aes = play.start("aes", symmetric=AES_128_CFB)
    xor = play.start("xor", symmetric=xor_with(11))
    for flag in (DECRYPT, ENCRYPT, AUDIT):
        auths = [Auth(session=each, attributes=flag | CONTINUE) for each in (aes, xor)]
        play.call(f"both {flag:x}", TPM_CC.GetRandom, (), 8, auths=auths)
        play.call(f"both {flag:x}", TPM_CC.StirRandom, (), b"12", auths=auths)
        alone = [Auth(session=plain, attributes=flag | CONTINUE)]
        play.call(f"no cipher {flag:x}", TPM_CC.GetRandom, (), 8, auths=alone)
        play.call(f"no cipher {flag:x}", TPM_CC.StirRandom, (), b"12", auths=alone)
    for first, second, third in (
        (Auth(session=plain), Auth(session=aes, attributes=0x21), Auth(session=xor, attributes=0x41)),
        (Auth(session=plain), Auth(session=aes, attributes=0x61), Auth(session=xor, attributes=0x81)),
        (password(), Auth(session=aes, attributes=0x61), Auth(session=xor, attributes=0x81)),
        (Auth(session=xor, attributes=0x61), Auth(session=aes, attributes=0x81), None),
    ):
        auths = [each for each in (first, second, third) if each is not None]
        secrets = TPMS_SENSITIVE_CREATE(userAuth=b"key", data=b"")
        play.call("make", TPM_CC.CreatePrimary, (OWNER,), secrets, SIGNING_KEY, b"", (), auths=auths)
        play.call("drop", TPM_CC.FlushContext, (), 0x80000000)


def audits(play):
    first, second = play.start(), play.start()

    def read(label, session, attributes):
        auth = Auth(session=session, attributes=attributes | CONTINUE)
        if play.call(label, TPM_CC.GetRandom, (), 8, auths=[auth]) is not None:
            play.steps.append(("attributes", response_attributes(play), None))

    read("first", first, AUDIT)
    read("again", first, AUDIT)
    read("exclusive", first, AUDIT | EXCLUSIVE)
    between = (
        (TPM_CC.GetRandom, (4,)),
        (TPM_CC.PCR_Read, ((),)),
        (TPM_CC.FlushContext, (0x80000000,)),
        (TPM_CC.Shutdown, (0,)),
        (TPM_CC.GetCapability, (6, 0x100, 1)),
        (TPM_CC.ReadClock, ()),
    )
    play.call("make", TPM_CC.CreatePrimary, (OWNER,), NO_SECRETS, SIGNING_KEY, b"", ())
    for code, given in between:
        read("anew", first, AUDIT | RESET)
        play.call("between", code, (), *given)
        read("after", first, AUDIT)
        read("exclusive", first, AUDIT | EXCLUSIVE)
        read("anew and exclusive", first, AUDIT | RESET | EXCLUSIVE)
    read("other", second, AUDIT)
    read("back", first, AUDIT)
    read("exclusive", first, AUDIT | EXCLUSIVE)
    read("exclusive", second, AUDIT | EXCLUSIVE)
    read("no audit", second, ENCRYPT | EXCLUSIVE)
    third = play.start()
    read("fresh and exclusive", third, AUDIT | EXCLUSIVE)


def beginnings(play):
    base = {"key": NULL, "bind": NULL, "nonce": bytes(16), "salt": b"", "symmetric": NO_CIPHER, "hash": 11}

    def begin(label, **changes):
        given = {**base, **changes}
        made = play.call(
            label,
            TPM_CC.StartAuthSession,
            (given["key"], given["bind"]),
            given["nonce"],
            given["salt"],
            0,
            given["symmetric"],
            given["hash"],
        )
        if made is not None:
            play.client.call(TPM_CC.FlushContext, (), made[0])

    for size in (15, 16, 20, 21, 32, 33):
        begin(f"nonce {size}", nonce=bytes(size))
        begin(f"nonce {size} sha1", nonce=bytes(size), hash=4)
    begin("salt without key", salt=b"123")
    for mode in (0x40, 0x41, 0x42, 0x43, 0x44, 0x10):
        begin(f"mode {mode:x}", symmetric=TPMT_SYM_DEF(algorithm=TPM_ALG.AES.value, keyBits=128, mode=mode))
    for algorithm, bits in ((TPM_ALG.AES, 256), (TPM_ALG.CAMELLIA, 128), (TPM_ALG.TDES, 192)):
        begin("cipher", symmetric=TPMT_SYM_DEF(algorithm=algorithm.value, keyBits=bits, mode=0x43))
    for bind in (OWNER, 0x4000000B, 0x4000000C, LOCKOUT, 0, PCR, 0x01500000, 0x80000000):
        begin(f"bind {bind:x}", bind=bind)
    for words in ("000600800010", "00060081 0043", "000a000b", "000a0010", "00010080", "0006 00c0 0043"):
        body = sized(bytes(16)) + sized(b"") + b"\0" + bytes.fromhex(words) + b"\0\x0b"
        play.do(words, lambda sent: play.tpm.execute(sent)[:10], _start(body), show=bytes.hex)
        for handle in (0x02000000, 0x02000001, 0x02000002):
            play.tpm.execute(command(TPM_CC.FlushContext, (), handle.to_bytes(4, "big")))
    for kind, hash_alg in ((2, 11), (4, 11), (0, 0x10), (0, 0x12)):
        body = sized(bytes(16)) + sized(b"") + bytes([kind]) + b"\0\x10" + hash_alg.to_bytes(2, "big")
        play.raw(f"kind {kind} hash {hash_alg}", _start(body))


def _start(body):
    return command(TPM_CC.StartAuthSession, (NULL, NULL), body)


def salts(play):
    parent = play.call("parent", TPM_CC.CreatePrimary, (OWNER,), NO_SECRETS, STORAGE_PARENT, b"", ())
    signer = play.call("signer", TPM_CC.CreatePrimary, (OWNER,), NO_SECRETS, SIGNING_KEY, b"", ())
    off_curve = TPMS_ECC_POINT(x=bytes(31) + b"1", y=bytes(31) + b"2").encode()
    for key in (parent[0], signer[0], 0x80000002):
        for salt in (b"", b"123", off_curve, off_curve + b"1"):
            nonce = bytes(16)
            play.call("salt", TPM_CC.StartAuthSession, (key, NULL), nonce, salt, 0, NO_CIPHER, 11)
    salted = play.start("salted", salt_key=parent[:2], symmetric=AES_128_CFB)
    play.call("use", TPM_CC.PCR_Reset, (PCR,), auths=[Auth(session=salted)])
    play.call("encrypt", TPM_CC.GetRandom, (), 8, auths=[Auth(session=salted, attributes=0x41)])
    play.call("decrypt", TPM_CC.StirRandom, (), b"a" * 23, auths=[Auth(session=salted, attributes=0x21)])
    play.flush(salted)
    both = play.start("bound and salted", salt_key=parent[:2], bind=signer[0], symmetric=xor_with(12))
    play.call("use", TPM_CC.PCR_Reset, (PCR,), auths=[Auth(session=both)])
    play.call("decrypt", TPM_CC.StirRandom, (), b"a" * 50, auths=[Auth(session=both, attributes=0x21)])


def handles(play):
    sessions = [
        play.start(kind.name, kind) for kind in (TPM_SE.HMAC, TPM_SE.POLICY, TPM_SE.TRIAL, TPM_SE.HMAC)
    ]
    play.flush(sessions[1])
    play.start("second place")
    play.flush(sessions[0], sessions[2])
    play.start("first place", TPM_SE.POLICY)


def contexts(play):
    def shape(result):
        return result[0].sequence, hex(result[0].savedHandle), hex(result[0].hierarchy)

    def look():
        for first in (0x02000000, 0x03000000):
            listed = (1, first, 200)
            play.call("listed", TPM_CC.GetCapability, (), *listed, show=lambda result: str(result[1].data))
        play.call("counted", TPM_CC.GetCapability, (), 6, 0x203, 4, show=lambda result: str(result[1].data))

    def save(session):
        return play.call("save", TPM_CC.ContextSave, (session.handle,), show=shape)[0]

    def load(context):
        play.call("load", TPM_CC.ContextLoad, (), context, show=lambda result: hex(result[0]))

    sessions = [play.start() for _ in range(3)]
    saved = [save(session) for session in sessions]
    play.call("saved already", TPM_CC.ContextSave, (sessions[0].handle,))
    play.call("use", TPM_CC.PCR_Reset, (PCR,), auths=[Auth(session=sessions[0])])
    look()
    load(saved[1])
    load(saved[1])
    play.call("use", TPM_CC.PCR_Reset, (PCR,), auths=[Auth(session=sessions[1])])
    newer = save(sessions[1])
    load(saved[1])
    load(newer)
    play.flush(sessions[2])
    load(saved[2])
    many = []
    for _ in range(66):
        session = play.start("many", TPM_SE.POLICY)
        if session is not None:
            many.append(save(session))
    look()
    for number, (stop, start) in enumerate(((1, 1), (1, 0), (0, 0))):
        play.call("stop", TPM_CC.Shutdown, (), stop)
        play.tpm.init()
        play.raw("start", command(TPM_CC.Startup, (), bytes([0, start])))
        load(many[number])
        look()


def rsa_salts(play):
    key = play.call("key", TPM_CC.CreatePrimary, (0x4000000B,), NO_SECRETS, EK_RSA, b"", ())
    for symmetric in (AES_128_CFB, xor_with(4)):
        salted = play.start("salted", salt_key=key[:2], symmetric=symmetric)
        play.call("encrypt", TPM_CC.GetRandom, (), 8, auths=[Auth(session=salted, attributes=0x41)])
        play.call("decrypt", TPM_CC.StirRandom, (), b"a" * 23, auths=[Auth(session=salted, attributes=0x21)])
        play.flush(salted)
    for salt in (b"", b"123", bytes(256), b"\xff" * 256, b"1" * 257):
        play.call("salt", TPM_CC.StartAuthSession, (key[0], NULL), bytes(16), salt, 0, NO_CIPHER, 11)


SCENARIOS = {
    "sessions-all_kinds": all_kinds,
    "sessions-every_attribute": every_attribute,
    "sessions-policy_sessions_in_other_roles": policy_sessions_in_other_roles,
    "sessions-wrong_sessions": wrong_sessions,
    "sessions-several_sessions": several_sessions,
    "sessions-audits": audits,
    "sessions-beginnings": beginnings,
    "sessions-salts": salts,
    "sessions-handles": handles,
    "sessions-contexts": contexts,
    "sessions-rsa_salts": rsa_salts,
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_sessions_answer_as_those_of_swtpm(program, tmp_path, name):
    differing, steps = compare(program, tmp_path, SCENARIOS[name], name)

    assert differing == []
    assert steps > 4
