"""Which of several refusals is given, and what takes a slot: swtpm and the device must agree, and on what is written here."""

import struct

import pytest

from sim.tpm.constants import TPM_CC, rc_name

from .swtpm_peer import LOCKOUT, NULL, OWNER, PLATFORM, Ours, Peer, code_of, command, sized, startup

pytestmark = pytest.mark.client

NO, AES, CFB, CMAC, HMAC_ALG, XOR = 0x10, 6, 0x43, 0x3F, 5, 0x0A
SHA1, SHA256 = 4, 0x0B
OBJECT, INDEX, PARENT = 0x80000000, 0x01500001, 0x81000001
NOTHING, SECRET = sized(sized(b"") + sized(b"")), sized(sized(b"") + sized(b"k" * 32))


def template(kind, attributes, *parameters, unique=b"\0\0"):
    head = struct.pack(">HHIH", kind, SHA256, attributes, 0)
    return sized(head + struct.pack(f">{len(parameters)}H", *parameters) + unique)


KEYS = {
    "hmac": template(8, 0x40072, HMAC_ALG, SHA256),
    "restricted hmac": template(8, 0x50072, HMAC_ALG, SHA256),
    "xor parent": template(8, 0x30072, XOR, SHA256, 0x22),
    "sealed": template(8, 0x52, NO),
    "cipher": template(0x25, 0x60072, AES, 128, NO),
    "cipher parent": template(0x25, 0x30072, AES, 128, CFB),
    "cmac": template(0x25, 0x40072, AES, 128, CMAC),
    "storage": template(0x23, 0x30472, AES, 128, CFB, NO, 3, NO, unique=bytes(4)),
}
MACS = {
    ("hmac", NO): "SUCCESS (0x000)",
    ("hmac", SHA1): "VALUE (parameter 2, 0x2c4)",
    ("restricted hmac", NO): "ATTRIBUTES (handle 1, 0x182)",
    ("restricted hmac", SHA1): "VALUE (parameter 2, 0x2c4)",
    ("xor parent", NO): "ATTRIBUTES (handle 1, 0x182)",
    ("xor parent", CMAC): "VALUE (parameter 2, 0x2c4)",
    ("sealed", NO): "VALUE (parameter 2, 0x2c4)",
    ("sealed", SHA1): "KEY (handle 1, 0x19c)",
    ("sealed", CMAC): "SCHEME (parameter 2, 0x2d2)",
    ("cipher", NO): "VALUE (parameter 2, 0x2c4)",
    ("cipher", CMAC): "SUCCESS (0x000)",
    ("cipher parent", NO): "SCHEME (parameter 2, 0x2d2)",
    ("cipher parent", SHA256): "VALUE (parameter 2, 0x2c4)",
    ("cmac", NO): "SUCCESS (0x000)",
    ("storage", SHA256): "TYPE (handle 1, 0x18a)",
}


@pytest.fixture
def both(program, tmp_path):
    """swtpm and the device, both started."""
    peer, ours = Peer(program("swtpm"), tmp_path), Ours()
    for each in (peer, ours):
        assert code_of(each.execute(startup())) == 0
    yield peer, ours
    peer.close()


def said(each, *arguments):
    return rc_name(code_of(each.execute(command(*arguments))))


def primary(each, key, secrets=NOTHING):
    secrets = SECRET if key == "sealed" else secrets
    return each.execute(command(TPM_CC.CreatePrimary, (OWNER,), secrets + KEYS[key] + bytes(6), [b""]))


def flush(each, handle):
    assert code_of(each.execute(command(TPM_CC.FlushContext, (), struct.pack(">I", handle)))) == 0


def start(each, bind=NULL, kind=0):
    parameters = sized(b"n" * 16) + sized(b"") + bytes([kind]) + struct.pack(">HH", NO, SHA256)
    return each.execute(command(TPM_CC.StartAuthSession, (NULL, bind), parameters))


@pytest.mark.parametrize("code", [TPM_CC.HMAC, TPM_CC.HMAC_Start])
@pytest.mark.parametrize(("key", "asked"), MACS)
def test_a_key_that_cannot_make_a_code_is_refused_for_the_same_reason(both, key, asked, code):
    for each in both:
        primary(each, key)
        parameters = sized(b"abc") + struct.pack(">H", asked)
        assert said(each, code, (OBJECT,), parameters, [b""]) == MACS[key, asked]


def test_a_session_cannot_be_bound_to_a_bare_public_key(both):
    public = template(0x23, 0x60040, NO, NO, 3, NO, unique=sized(X) + sized(Y))
    for each in both:
        loaded = each.execute(command(TPM_CC.LoadExternal, (), sized(b"") + public + struct.pack(">I", NULL)))
        assert code_of(loaded) == 0
        assert rc_name(code_of(start(each, OBJECT))) == "HANDLE (handle 2, 0x28b)"


X = bytes.fromhex("6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296")
Y = bytes.fromhex("4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5")
"""The base point of P-256, which is a public key like any other."""


def test_a_policy_session_bound_to_what_is_guarded_is_locked_out_with_it(both):
    for each in both:
        assert said(each, *define(OWNER, 0x60006)) == "SUCCESS (0x000)"
        assert code_of(start(each, INDEX, kind=1)) == 0
        no_tries = struct.pack(">III", 0, 1000, 1000)
        assert said(each, TPM_CC.DictionaryAttackParameters, (LOCKOUT,), no_tries, [b""]) == "SUCCESS (0x000)"
        sequence = each.execute(command(TPM_CC.HashSequenceStart, (), struct.pack(">HH", 0, NO)))
        assert code_of(sequence) == 0
        sessions = struct.pack(">IHBH", 0x40000009, 0, 0, 0) + struct.pack(">IHBH", 0x03000000, 0, 1, 0)
        body = struct.pack(">III", 0, OBJECT, len(sessions)) + sessions + sized(b"")
        sent = struct.pack(">HII", 0x8002, 10 + len(body), TPM_CC.EventSequenceComplete) + body
        assert rc_name(code_of(each.execute(sent))) == "LOCKOUT (0x921)"


@pytest.mark.parametrize(
    ("size", "expected"), [(384, "VALUE (parameter 2, 0x2c4)"), (385, "SIZE (parameter 2, 0x2d5)")]
)
def test_a_hidden_salt_is_no_longer_than_a_block_of_the_longest_key(both, size, expected):
    for each in both:
        parameters = sized(b"n" * 16) + sized(bytes(size)) + b"\0" + struct.pack(">HH", NO, SHA256)
        assert said(each, TPM_CC.StartAuthSession, (NULL, NULL), parameters) == expected


def define(authority, attributes, size=8, policy=b""):
    public = struct.pack(">IHI", INDEX, SHA256, attributes) + sized(policy) + struct.pack(">H", size)
    return TPM_CC.NV_DefineSpace, (authority,), sized(b"") + sized(public), [b""]


@pytest.mark.parametrize(
    ("attributes", "policy", "expected"),
    [
        (0x40020002, b"", "HIERARCHY (handle 1, 0x185)"),
        (0x20002, b"", "HIERARCHY (handle 1, 0x185)"),
        (0x40020032, b"", "HIERARCHY (handle 1, 0x185)"),
        (0x40020002, b"x", "SIZE (parameter 2, 0x2d5)"),
    ],
)
def test_the_platform_defines_no_index_while_its_nv_is_off(both, attributes, policy, expected):
    for each in both:
        off = struct.pack(">IB", 0x4000000D, 0)
        assert said(each, TPM_CC.HierarchyControl, (PLATFORM,), off, [b""]) == "SUCCESS (0x000)"
        assert said(each, *define(PLATFORM, attributes, policy=policy)) == expected


def test_a_trial_session_is_refused_before_presence_is_asked_for(both):
    for each in both:
        assert code_of(start(each, kind=3)) == 0
        session = struct.pack(">IHBH", 0x03000000, 0, 1, 0)
        body = struct.pack(">II", PLATFORM, len(session)) + session + bytes(8)
        sent = struct.pack(">HII", 0x8002, 10 + len(body), TPM_CC.PP_Commands) + body
        assert rc_name(code_of(each.execute(sent))) == "ATTRIBUTES (session 1, 0x982)"


def test_a_persistent_object_takes_a_slot_while_it_is_used(both):
    answers = [with_persistent_parent(each) for each in both]
    assert answers[0] == answers[1]
    assert answers[1] == [
        ("SUCCESS (0x000)", 0x80000001),
        ("SUCCESS (0x000)", 0x80000002),
        ("OBJECT_MEMORY (0x902)", None),
        ("SUCCESS (0x000)", 0x80000000),
        ("OBJECT_MEMORY (0x902)", None),
    ]


def with_persistent_parent(each):
    """Load a child again and again below a persistent parent, then fill the last slot; return codes and handles."""
    primary(each, "storage")
    assert (
        said(each, TPM_CC.EvictControl, (OWNER, OBJECT), struct.pack(">I", PARENT), [b""])
        == "SUCCESS (0x000)"
    )
    created = each.execute(
        command(TPM_CC.Create, (PARENT,), SECRET + template(8, 0x452, NO) + bytes(6), [b""])
    )
    flush(each, OBJECT)
    middle = 16 + int.from_bytes(created[14:16], "big")
    end = middle + 2 + int.from_bytes(created[middle : middle + 2], "big")
    answers = [each.execute(command(TPM_CC.Load, (PARENT,), created[14:end], [b""])) for _ in range(3)]
    answers += [primary(each, "storage"), each.execute(command(TPM_CC.ReadPublic, (PARENT,)))]
    return [
        (rc_name(code_of(answer)), int.from_bytes(answer[10:14], "big") if not code_of(answer) else None)
        for answer in answers
    ]


def test_a_persistent_handle_of_a_hierarchy_that_is_off_is_no_question_of_slots(both):
    for each in both:
        for _ in range(3):
            assert code_of(primary(each, "hmac")) == 0
        assert said(each, TPM_CC.ReadPublic, (PARENT,)) == "OBJECT_MEMORY (0x902)"
        off = struct.pack(">IB", OWNER, 0)
        assert said(each, TPM_CC.HierarchyControl, (OWNER,), off, [b""]) == "SUCCESS (0x000)"
        for _ in range(3):
            each.execute(command(TPM_CC.HashSequenceStart, (), struct.pack(">HH", 0, SHA256)))
        assert said(each, TPM_CC.ReadPublic, (PARENT,)) == "HANDLE (handle 1, 0x18b)"
