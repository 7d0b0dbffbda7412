"""swtpm and the device judge the same templates, keys and private areas alike, and give the same Names.

The one difference that is accepted: where the padding of a seed that was shared with an RSA key is wrong, swtpm 0.7.1
answers FAILURE, though it goes on working; the device blames the value, as the library says.
"""

import random
import struct

import attrs
import pytest

from sim.core.rng import Stream
from sim.tpm.client import TpmError
from sim.tpm.client_sessions import Auth, SessionClient, password
from sim.tpm.constants import TPM_CC, TPM_RC, TPM_SE
from sim.tpm.creation import symmetric_unique
from sim.tpm.keys import name_of
from sim.tpm.templates import EK_RSA, SIGNING_KEY
from sim.tpm.wire import TPMS_SENSITIVE_CREATE, TPMT_PUBLIC, TPMT_SYM_DEF_OBJECT
from sim.tpm.wire.private import TPMS_DERIVE, TPMT_SENSITIVE

from .object_maker import ECC, ObjectMaker
from .swtpm_peer import ENDORSEMENT, NULL, OWNER, PLATFORM, Ours, Peer, code_of, command, sized, startup

pytestmark = pytest.mark.client

STORAGE = TPMT_PUBLIC.decode(bytes.fromhex("0023000b0003007200000006008000430010000300100000" + "0000"))
LOOSE_STORAGE = attrs.evolve(STORAGE, objectAttributes=0x30060)
SEALED = TPMT_PUBLIC.decode(bytes.fromhex("0008000b00000052000000100000"))
LOOSE = attrs.evolve(SEALED, objectAttributes=0x40)
DERIVER = TPMT_PUBLIC.decode(bytes.fromhex("0008000b000300400000000a000b00220000"))
EMPTY = TPMS_SENSITIVE_CREATE(userAuth=b"", data=b"")
NONE = TPMT_SYM_DEF_OBJECT.decode(bytes.fromhex("0010"))
AES = TPMT_SYM_DEF_OBJECT.decode(bytes.fromhex("000600800043"))
HANDLES = range(0x80000000, 0x80000003)


@pytest.fixture
def both(program, tmp_path):
    peer = Peer(program("swtpm"), tmp_path)
    tpms = (peer, Ours())
    assert {code_of(tpm.execute(startup())) for tpm in tpms} == {0}
    yield tpms
    peer.close()


def flush(tpm, response):
    if code_of(response) == 0:
        tpm.execute(command(TPM_CC.FlushContext, (), response[10:14]))


def primary(both, public, hierarchy=OWNER):
    parameters = sized(bytes(4)) + sized(public.encode()) + bytes(6)
    for tpm in both:
        assert code_of(tpm.execute(command(TPM_CC.CreatePrimary, (hierarchy,), parameters, [b""]))) == 0


@pytest.mark.parametrize("seed", [1, 2])
def test_random_templates_are_judged_alike_and_what_they_make_has_the_same_size(both, seed):
    maker = ObjectMaker(seed)
    primary(both, STORAGE)
    primary(both, LOOSE_STORAGE)
    reached = set()
    for number in range(4000):
        template, secrets, under = maker.template(), maker.secrets(), maker.one_of(*HANDLES[:2])
        hierarchy = maker.one_of(OWNER, NULL, ENDORSEMENT, PLATFORM)
        wide = secrets + sized(template) + bytes(6)
        sent = maker.one_of(
            command(TPM_CC.CreatePrimary, (hierarchy,), wide, [b""]),
            command(TPM_CC.Create, (under,), wide, [b""]),
            command(TPM_CC.CreateLoaded, (maker.one_of(hierarchy, under),), secrets + sized(template), [b""]),
            command(TPM_CC.TestParms, (), template[:2] + without_head(template)),
        )
        theirs, mine = (tpm.execute(sent) for tpm in both)
        assert (code_of(mine), len(mine)) == (code_of(theirs), len(theirs)), (number, sent.hex())
        reached.add((sent[6:10], code_of(mine)))
        if code_of(sent) in (TPM_CC.CreatePrimary, TPM_CC.CreateLoaded):
            flush(both[0], theirs)
            flush(both[1], mine)

    assert len(reached) > 40


def without_head(template):
    policy = int.from_bytes(template[8:10], "big")
    return template[10 + policy : -4 if template[1] == ECC else -2]


@pytest.mark.parametrize("seed", [1, 2])
def test_random_external_objects_are_judged_alike_and_have_the_same_names(both, seed):
    maker = ObjectMaker(seed)
    reached = set()
    for number in range(3000):
        public, sensitive = maker.pair()
        hierarchy = maker.one_of(*[NULL] * 8, OWNER, ENDORSEMENT, 0x40000009)
        inner = sized(sensitive) if maker.random.random() < 0.7 else bytes(2)
        load = command(TPM_CC.LoadExternal, (), inner + sized(public) + struct.pack(">I", hierarchy))
        loaded = [tpm.execute(load) for tpm in both]
        assert loaded[0] == loaded[1], (number, load.hex())
        reached.add(code_of(load))
        if code_of(loaded[0]) == 0:
            handle = int.from_bytes(loaded[0][10:14], "big")
            follow = [
                command(TPM_CC.ReadPublic, (handle,)),
                command(TPM_CC.Unseal, (handle,), b"", [b""]),
                command(TPM_CC.EvictControl, (OWNER, handle), struct.pack(">I", 0x81000001), [b""]),
                command(TPM_CC.Duplicate, (handle, NULL), b"\0\0\0\x10", [b""]),
            ]
            for sent in [follow[0], maker.one_of(*follow)]:
                theirs, mine = (tpm.execute(sent) for tpm in both)
                assert mine == theirs, (number, load.hex(), sent.hex())
        for tpm, response in zip(both, loaded, strict=True):
            flush(tpm, response)


class Walk:
    """The same object commands on both TPMs; what each of them made itself is kept in pairs (theirs, ours)."""

    def __init__(self, both, seed):
        self.random = random.Random(seed)
        self.clients = [SessionClient(tpm.execute, Stream(b"client")) for tpm in both]
        self.seen = []

    def call(self, label, code, handles, *parameters, auths=None):
        """Run a command on both; return a pair of results, or None where both refused it alike."""
        answers = []
        for number, client in enumerate(self.clients):
            mine = [each[number] if isinstance(each, list) else each for each in parameters]
            chosen = [each[number] if isinstance(each, list) else each for each in auths or ()]
            try:
                answers.append((0, client.call(code, handles, *mine, auths=chosen)))
            except TpmError as refused:
                answers.append((refused.rc, None))
        if answers[0][0] == TPM_RC.FAILURE and answers[1][0] & 0xBF == TPM_RC.VALUE:
            return None
        assert answers[0][0] == answers[1][0], (label, [hex(rc) for rc, _ in answers], len(self.seen))
        self.seen.append((label, answers[0][0]))
        return None if answers[0][0] else [result for _, result in answers]

    def changed(self, pair):
        """Return a pair of byte strings, sometimes both damaged at the same place."""
        if self.random.random() < 0.7:
            return pair
        at = self.random.choice([0, 1, 2, 5, 20, -1])
        kind = self.random.choice(["flip", "cut", "add", "empty"])
        return [self._damaged(each, at, kind) for each in pair]

    @staticmethod
    def _damaged(data, at, kind):
        if kind == "flip" and len(data) > 20:
            at %= len(data)
            return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        return {"cut": data[:-1], "add": data + b"\0", "empty": b""}.get(kind, data)

    def policy(self):
        """Begin a policy session for Duplicate; return the authorisations and the policy's digest."""
        auths, digest = [], b""
        for client in self.clients:
            session = client.start(TPM_SE.POLICY)
            client.call(TPM_CC.PolicyCommandCode, (session.handle,), TPM_CC.Duplicate.value)
            digest = client.call(TPM_CC.PolicyGetDigest, (session.handle,))[0]
            auths.append(Auth(session=session))
        return auths, digest

    def flush(self, *handles):
        for client in self.clients:
            for handle in handles:
                client.call(TPM_CC.FlushContext, (), handle)


EMPTY_PASSWORD = [password(), password()]


def column(pairs, index):
    return [each[index] for each in pairs]


@pytest.mark.parametrize("seed", range(3))
def test_a_random_walk_through_the_object_commands_meets_the_same_codes(both, seed):
    walk = Walk(both, seed)
    chance = walk.random
    primary(both, chance.choice([STORAGE, attrs.evolve(EK_RSA, objectAttributes=0x30072, authPolicy=b"")]))
    primary(both, LOOSE_STORAGE, chance.choice([OWNER, ENDORSEMENT]))
    auths, digest = walk.policy()
    children = []
    for attributes in (0x52, 0x40, 0x440, 0x840, 0x42, 0x56):
        public = attrs.evolve(LOOSE, objectAttributes=attributes, authPolicy=digest)
        secrets = TPMS_SENSITIVE_CREATE(userAuth=b"pw", data=b"data")
        for parent in HANDLES[:2]:
            made = walk.call(
                "create", TPM_CC.Create, (parent,), secrets, public, b"", (), auths=[EMPTY_PASSWORD]
            )
            if made is not None:
                children.append((parent, column(made, 0), column(made, 1)))
    contexts, moved = [], []
    for _ in range(250):
        parent, private, public = chance.choice(children)
        above = chance.choice([parent, parent, parent, *HANDLES])
        loaded = walk.call(
            "load", TPM_CC.Load, (above,), walk.changed(private), public, auths=[EMPTY_PASSWORD]
        )
        if loaded is None:
            continue
        step_on_object(walk, chance, public, auths, moved)
        context = walk.call("save", TPM_CC.ContextSave, (HANDLES[2],))
        contexts.append(column(context, 0))
        walk.flush(HANDLES[2])
        step_on_context(walk, chance, chance.choice(contexts))
        if moved:
            step_on_moved(walk, chance, *chance.choice(moved))

    assert len(set(walk.seen)) > 30


def step_on_object(walk, chance, public, auths, moved):
    handle, under = HANDLES[2], chance.choice([*HANDLES, NULL])
    value = password(chance.choice([b"pw", b"pw", b"pw", b""]))
    kind = chance.choice(["unseal", "change", "evict", "duplicate", "duplicate", "public"])
    if kind == "unseal":
        walk.call(kind, TPM_CC.Unseal, (handle,), auths=[password(b"pw")])
    elif kind == "change":
        new = chance.choice([b"pw", b"n" * 33, b"n" + bytes(40)])
        walk.call(
            kind, TPM_CC.ObjectChangeAuth, (handle, chance.choice(HANDLES)), new, auths=[password(b"pw")]
        )
    elif kind == "evict":
        persistent = chance.choice([0x81000001, 0x81800001])
        auth = chance.choice([OWNER, PLATFORM])
        for handles in ((auth, handle), (auth, persistent), (OWNER, 0x81000001)):
            walk.call(kind, TPM_CC.EvictControl, handles, persistent, auths=[EMPTY_PASSWORD])
    elif kind == "duplicate":
        symmetric = chance.choice([NONE, NONE, AES])
        key = chance.choice([b"", b"", b"k" * 16, b"k" * 15])
        session = chance.choice([auths, auths, [value, value]])
        if session is auths:
            for client, auth in zip(walk.clients, auths, strict=True):
                client.call(TPM_CC.PolicyRestart, (auth.session.handle,))
                client.call(TPM_CC.PolicyCommandCode, (auth.session.handle,), TPM_CC.Duplicate.value)
        made = walk.call(kind, TPM_CC.Duplicate, (handle, under), key, symmetric, auths=[session])
        if made is not None:
            used = [key or out for out in column(made, 0)]
            moved.append((under, public, used, column(made, 1), column(made, 2), symmetric))
    else:
        walk.call(kind, TPM_CC.ReadPublic, (handle,))


def step_on_context(walk, chance, context):
    change = chance.choice(["none", "none", "sequence", "hierarchy", "savedHandle", "contextBlob"])
    if change == "contextBlob":
        blobs = walk.changed([each.contextBlob for each in context])
        context = [attrs.evolve(each, contextBlob=blob) for each, blob in zip(context, blobs, strict=True)]
    elif change != "none":
        others = {"sequence": 99, "hierarchy": chance.choice([NULL, PLATFORM]), "savedHandle": 0x80000001}
        context = [attrs.evolve(each, **{change: others[change]}) for each in context]
    if walk.call("restore " + change, TPM_CC.ContextLoad, (), context) is not None:
        walk.flush(HANDLES[2])


def step_on_moved(walk, chance, under, public, key, private, seed, symmetric):
    above = chance.choice([under, under, *HANDLES[:2]])
    above = HANDLES[0] if above == NULL else above
    key, private, seed = walk.changed(key), walk.changed(private), walk.changed(seed)
    symmetric = chance.choice([symmetric, symmetric, symmetric, NONE, AES])
    made = walk.call(
        "import", TPM_CC.Import, (above,), key, public, private, seed, symmetric, auths=[EMPTY_PASSWORD]
    )
    if made is not None:
        loaded = walk.call("load", TPM_CC.Load, (above,), column(made, 0), public, auths=[EMPTY_PASSWORD])
        if loaded is not None:
            results = walk.call("unseal", TPM_CC.Unseal, (HANDLES[2],), auths=[password(b"pw")])
            assert results is None or results[0] == results[1]
            walk.flush(HANDLES[2])


def test_derived_objects_are_the_same_on_both(both):
    """The library fixes the derivation, so one parent key gives the same children everywhere."""
    walk = Walk(both, 1)
    sensitive = TPMT_SENSITIVE(sensitiveType=8, authValue=b"", seedValue=b"s" * 32, sensitive=b"k" * 32)
    public = attrs.evolve(DERIVER, unique=symmetric_unique(DERIVER, b"s" * 32, b"k" * 32))
    primary(both, STORAGE)
    wrapped = walk.call(
        "import",
        TPM_CC.Import,
        (HANDLES[0],),
        b"",
        public,
        sized(sensitive.encode()),
        b"",
        NONE,
        auths=[EMPTY_PASSWORD],
    )
    walk.call("load", TPM_CC.Load, (HANDLES[0],), column(wrapped, 0), public, auths=[EMPTY_PASSWORD])
    texts = [
        "0023000b0004005000000010" + "0018000b00030010",
        "0023000b0004005000000010" + "001000050010",
        "0023000c0002005000000010" + "001000040010",
        "0023000b0004005000000010" + "001000010010",
        "0023000b0004005000000010" + "001000100010",
        "0023000b0003005000000006008000430010" + "00030010",
        "0008000b000400500000" + "0005000b",
        "0008000c000400500000" + "0005000d",
        "0008000b000300500000" + "000a000b0022",
        "0008000b000000500000" + "0010",
        "0025000b000600500000" + "000600800043",
        "0025000b000600500000" + "000601000043",
        "0025000b000600500000" + "000300c00043",
        "0025000b000300500000" + "000600800043",
        "0025000b000600400000" + "000600800043",
        "0025000b000600700000" + "000600800043",
        "0001000b000600500000" + "001000100800" + "00000000",
    ]
    labels = [(b"label", b"context"), (b"label", b""), (b"", b""), (b"l" * 32, b"c" * 32)]
    for text in texts:
        for label, context in labels:
            derive = TPMS_DERIVE(label=label, context=context).encode()
            for secrets in (EMPTY, attrs.evolve(EMPTY, data=TPMS_DERIVE(label=b"x", context=b"y").encode())):
                made = walk.call(
                    f"derive {text}",
                    TPM_CC.CreateLoaded,
                    (HANDLES[1],),
                    secrets,
                    bytes.fromhex(text) + derive,
                    auths=[EMPTY_PASSWORD],
                )
                if made is not None:
                    assert made[0] == made[1], text
                    walk.flush(HANDLES[2])


@pytest.mark.parametrize("seed", range(3))
def test_credentials_and_rewraps_meet_the_same_codes(both, seed):
    walk = Walk(both, seed)
    chance = walk.random
    movable = attrs.evolve(LOOSE, authPolicy=bytes(32))
    rsa = attrs.evolve(EK_RSA, objectAttributes=0x30072, authPolicy=b"")
    for public in (STORAGE, rsa, chance.choice([LOOSE_STORAGE, SIGNING_KEY])):
        made = walk.call(
            "primary", TPM_CC.CreatePrimary, (OWNER,), EMPTY, public, b"", (), auths=[EMPTY_PASSWORD]
        )
        assert made is not None
    names = [client.name_of(HANDLES[2]) for client in walk.clients]
    for _ in range(150):
        key, other, third = (chance.choice([*HANDLES, *HANDLES, NULL]) for _ in range(3))
        key = HANDLES[0] if key == NULL else key
        credential = chance.choice([b"c" * 32, b"c", b"", b"c" * 33])
        made = walk.call("make", TPM_CC.MakeCredential, (key,), credential, names)
        if made is not None:
            blob, secret = walk.changed(column(made, 0)), walk.changed(column(made, 1))
            handles = (
                chance.choice([HANDLES[2], HANDLES[2], HANDLES[0]]),
                chance.choice([key, key, *HANDLES]),
            )
            both_passwords = [EMPTY_PASSWORD, EMPTY_PASSWORD]
            opened = walk.call(
                "activate", TPM_CC.ActivateCredential, handles, blob, secret, auths=both_passwords
            )
            assert opened is None or opened[0] == opened[1] == (credential,)
        wrapped = walk.call(
            "rewrap", TPM_CC.Rewrap, (NULL, other), b"content", name_of(movable), b"", auths=[EMPTY_PASSWORD]
        )
        if wrapped is None:
            continue
        private, secret = walk.changed(column(wrapped, 0)), walk.changed(column(wrapped, 1))
        handles = (chance.choice([other, other, *HANDLES, NULL]), third)
        again = walk.call(
            "rewrap", TPM_CC.Rewrap, handles, private, name_of(movable), secret, auths=[EMPTY_PASSWORD]
        )
        lengths = [[len(each) for each in result] for result in again or ()]
        assert again is None or lengths[0] == lengths[1]

    assert len(set(walk.seen)) > 12
