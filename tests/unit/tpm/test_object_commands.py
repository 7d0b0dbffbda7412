"""Objects of every type: made, loaded, sealed, saved, moved, certified, derived."""

import pickle
from hashlib import sha256

import attrs
import pytest

from sim.core.rng import Stream
from sim.tpm.client import TpmError
from sim.tpm.client_sessions import Auth, SessionClient, password
from sim.tpm.constants import TPM_ALG, TPM_CC, TPM_RC, TPM_RH, TPM_SE, TPM_SU
from sim.tpm.creation import symmetric_unique
from sim.tpm.device import Tpm
from sim.tpm.keys import name_of
from sim.tpm.profile import TpmProfile
from sim.tpm.templates import EK_ECC, EK_RSA, SIGNING_KEY, STORAGE_PARENT
from sim.tpm.wire import TPMS_SENSITIVE_CREATE, TPMT_PUBLIC, TPMT_SYM_DEF_OBJECT
from sim.tpm.wire.private import TPMS_DERIVE, TPMT_PUBLIC_PARMS, TPMT_SENSITIVE

OWNER, NULL, PLATFORM, ENDORSEMENT = (
    handle.value for handle in (TPM_RH.OWNER, TPM_RH.NULL, TPM_RH.PLATFORM, TPM_RH.ENDORSEMENT)
)
NONE = TPMT_SYM_DEF_OBJECT(algorithm=TPM_ALG.NULL.value, keyBits=None, mode=None)
AES = TPMT_SYM_DEF_OBJECT(algorithm=TPM_ALG.AES.value, keyBits=128, mode=TPM_ALG.CFB.value)
RSA, ECC, KEYEDHASH, SYMCIPHER = "0001", "0023", "0008", "0025"


def template(kind, attributes, parameters, *, name_alg="000b", policy="0000"):
    unique = "00000000" if kind == ECC else "0000"
    return TPMT_PUBLIC.decode(bytes.fromhex(f"{kind}{name_alg}{attributes:08x}{policy}{parameters}{unique}"))


RSA_NULL = "0010001008000000" + "0000"
ECC_NULL = "0010001000030010"
STORAGE_ECC = template(ECC, 0x30072, "0006008000430010" + "00030010")
STORAGE_RSA = template(RSA, 0x30072, "0006008000430010" + "080000000000")
SEALED = template(KEYEDHASH, 0x52, "0010")
MOVABLE = template(KEYEDHASH, 0x40, "0010")
TEMPLATES = {
    "default child": template(RSA, 0x60072, RSA_NULL),
    "P-256 child": template(ECC, 0x60072, ECC_NULL),
    "RSA AK": template(RSA, 0x50072, "00100014000b0800" + "00000000"),
    "P-256 AK": template(ECC, 0x50072, "00100018000b00030010"),
    "noDA": template(RSA, 0x40472, RSA_NULL),
    "noDA PSS": template(RSA, 0x50472, "00100016000b0800" + "00000000"),
    "HMAC key": template(KEYEDHASH, 0x40072, "0005000b"),
    "AES key": template(SYMCIPHER, 0x60072, "000600800010"),
    "AES-256 OFB": template(SYMCIPHER, 0x60072, "000601000041"),
    "derivation parent": template(KEYEDHASH, 0x30072, "000a000b0022"),
    "ECDAA": template(ECC, 0x40072, "0010001a000b000000030010"),
    "ECDH": template(ECC, 0x20072, "00100019000b00030010"),
    "P-384": template(ECC, 0x40072, "0010001000040010"),
    "SHA-384 storage": template(RSA, 0x30072, "0006010000430010" + "080000000000", name_alg="000c"),
    "EK RSA": EK_RSA,
    "EK ECC": EK_ECC,
}


def secrets(data=b"", auth=b""):
    return TPMS_SENSITIVE_CREATE(userAuth=auth, data=data)


def refused(call, *arguments, **options):
    with pytest.raises(TpmError) as caught:
        call(*arguments, **options)
    return caught.value.rc


class Talk(SessionClient):
    """The session client with short forms of the object commands."""

    def primary(self, public=STORAGE_ECC, hierarchy=OWNER, sensitive=None):
        return self.call(
            TPM_CC.CreatePrimary, (hierarchy,), sensitive or secrets(), public, b"", (), auths=[password()]
        )[0]

    def create(self, parent, public, sensitive=None, auth=b""):
        private, made, *_ = self.call(
            TPM_CC.Create, (parent,), sensitive or secrets(), public, b"out", (), auths=[password(auth)]
        )
        return private, made

    def load(self, parent, private, public):
        return self.call(TPM_CC.Load, (parent,), private, public, auths=[password()])[0]

    def unseal(self, handle, auth=b""):
        return self.call(TPM_CC.Unseal, (handle,), auths=[password(auth)])[0]

    def external(self, public, sensitive=None, hierarchy=NULL):
        return self.call(TPM_CC.LoadExternal, (), sensitive, public, hierarchy)[0]

    def flush(self, handle):
        self.call(TPM_CC.FlushContext, (), handle)
        self.names.pop(handle, None)

    def save(self, handle):
        return self.call(TPM_CC.ContextSave, (handle,))[0]

    def restore(self, context):
        return self.call(TPM_CC.ContextLoad, (), context)[0]

    def evict(self, auth, handle, persistent):
        return self.call(TPM_CC.EvictControl, (auth, handle), persistent, auths=[password()])

    def duplication_policy(self):
        session = self.start(TPM_SE.POLICY)
        self.call(TPM_CC.PolicyCommandCode, (session.handle,), TPM_CC.Duplicate.value)
        digest = self.call(TPM_CC.PolicyGetDigest, (session.handle,))[0]
        return session, digest


def powered(slots=10, seed=b"a seed for tests"):
    tpm = Tpm(seed, TpmProfile(transient_slots=slots))
    tpm.init()
    talk = Talk(tpm.execute, Stream(b"client"))
    talk.call(TPM_CC.Startup, (), 0)
    return tpm, talk


@pytest.fixture
def tpm():
    return powered()[0]


@pytest.fixture
def talk(tpm):
    return Talk(tpm.execute, Stream(b"client"))


@pytest.mark.parametrize("public", TEMPLATES.values(), ids=TEMPLATES)
def test_every_template_of_real_clients_makes_a_primary_and_the_same_again(talk, public):
    first = talk.primary(public, ENDORSEMENT)
    second = talk.primary(public, ENDORSEMENT)
    made, name, _ = talk.call(TPM_CC.ReadPublic, (first,))

    assert attrs.evolve(made, unique=public.unique) == public
    assert talk.name_of(second) == name == name_of(made)


@pytest.mark.parametrize("parent", [STORAGE_ECC, STORAGE_RSA], ids=["ECC", "RSA"])
@pytest.mark.parametrize(
    "public", [each for name, each in TEMPLATES.items() if name != "SHA-384 storage"], ids=str
)
def test_every_template_makes_a_child_that_loads(tpm, talk, parent, public):
    above = talk.primary(parent)
    private, made = talk.create(above, public)
    handle = talk.load(above, private, made)

    assert talk.name_of(handle) == name_of(made)
    assert tpm.objects[handle].hierarchy == OWNER


def test_another_template_seed_or_datum_makes_another_primary(talk):
    other = powered(seed=b"another")[1]
    names = [
        talk.name_of(talk.primary()),
        talk.name_of(talk.primary(hierarchy=ENDORSEMENT)),
        talk.name_of(talk.primary(attrs.evolve(STORAGE_ECC, objectAttributes=0x30472))),
        talk.name_of(talk.primary(sensitive=secrets(b"datum"))),
        other.name_of(other.primary()),
    ]

    assert len(set(names)) == 5


def test_sealed_data_come_back_for_the_authorisation_value_alone(talk):
    parent = talk.primary()
    private, made = talk.create(parent, SEALED, secrets(b"the data", b"value"))
    handle = talk.load(parent, private, made)

    assert b"the data" not in private
    assert talk.unseal(handle, b"value") == b"the data"
    assert refused(talk.unseal, handle, b"other") == 0x98E
    assert refused(talk.unseal, parent) == 0x18A


def test_a_key_does_not_unseal(talk):
    assert refused(talk.unseal, talk.primary(TEMPLATES["HMAC key"])) == 0x182


def test_a_changed_private_area_and_one_of_another_parent_do_not_load(talk):
    parent, other = talk.primary(), talk.primary(hierarchy=ENDORSEMENT)
    private, made = talk.create(parent, SEALED, secrets(b"data"))
    for at in (0, 2, 40, len(private) - 1):
        changed = bytearray(private)
        changed[at] ^= 1
        assert refused(talk.load, parent, bytes(changed), made) & 0xFFF in (0x1DF, 0x1D5, 0x1DA)

    assert refused(talk.load, other, private, made) == 0x1DF
    assert refused(talk.load, parent, private, attrs.evolve(made, authPolicy=bytes(32))) == 0x1DF
    assert refused(talk.load, parent, b"", made) == 0x1D5
    assert refused(talk.load, talk.primary(SIGNING_KEY), private, made) == 0x18A


def test_the_authorisation_value_changes_in_the_new_private_area(talk):
    parent = talk.primary()
    private, made = talk.create(parent, SEALED, secrets(b"data", b"old"))
    handle = talk.load(parent, private, made)
    changed = talk.call(TPM_CC.ObjectChangeAuth, (handle, parent), b"new", auths=[password(b"old")])[0]
    again = talk.load(parent, changed, made)

    assert talk.unseal(handle, b"old") == talk.unseal(again, b"new") == b"data"
    wrong = talk.primary(hierarchy=ENDORSEMENT)
    change = (talk.call, TPM_CC.ObjectChangeAuth)
    assert refused(*change, (handle, wrong), b"new", auths=[password(b"old")]) == 0x28A
    assert refused(*change, (handle, parent), b"n" * 33, auths=[password(b"old")]) == 0x1D5


def test_a_context_returns_the_same_object_until_the_tpm_resets(tpm, talk):
    handle = talk.primary()
    before, context = tpm.objects[handle], talk.save(handle)
    talk.flush(handle)
    assert tpm.objects[talk.restore(context)] == before
    assert tpm.objects[talk.restore(context)] == before

    talk.call(TPM_CC.Shutdown, (), TPM_SU.STATE.value)
    tpm.init()
    talk.call(TPM_CC.Startup, (), TPM_SU.CLEAR.value)
    assert tpm.objects[talk.restore(context)] == before
    tpm.init()
    talk.call(TPM_CC.Startup, (), TPM_SU.CLEAR.value)
    assert refused(talk.restore, context) == 0x1DF


def test_a_context_of_an_object_with_stclear_ends_with_a_restart(tpm, talk):
    handle = talk.primary(attrs.evolve(STORAGE_ECC, objectAttributes=0x30076))
    child, made = talk.create(handle, attrs.evolve(SEALED, objectAttributes=0x56), secrets(b"x"))
    contexts = [talk.save(handle), talk.save(talk.load(handle, child, made))]
    for shutdown, startup, rc in [(TPM_SU.STATE, TPM_SU.STATE, 0), (TPM_SU.STATE, TPM_SU.CLEAR, 0x1DF)]:
        talk.call(TPM_CC.Shutdown, (), shutdown.value)
        tpm.init()
        talk.call(TPM_CC.Startup, (), startup.value)
        for context in contexts:
            assert context.savedHandle == 0x80000002
            assert rc == (refused(talk.restore, context) if rc else 0 * talk.restore(context))


@pytest.mark.parametrize(
    ("field", "change"),
    [("sequence", lambda n: n + 1), ("hierarchy", lambda _: ENDORSEMENT), ("savedHandle", lambda n: n + 1)]
    + [
        ("contextBlob", lambda blob, at=at: blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :])
        for at in (2, 90)
    ],
)
def test_a_changed_context_does_not_load(talk, field, change):
    context = talk.save(talk.primary())
    changed = attrs.evolve(context, **{field: change(getattr(context, field))})

    assert refused(talk.restore, changed) == 0x1DF


def test_a_session_context_loads_once(talk):
    session = talk.start()
    context = talk.save(session.handle)
    assert refused(talk.call, TPM_CC.Unseal, (talk.primary(),), auths=[Auth(session=session)]) == 0x918
    assert talk.restore(context) == session.handle
    assert refused(talk.restore, context) == 0x1CB


def test_more_objects_than_slots_are_used_by_saving_their_contexts():
    tpm, talk = powered(slots=3)
    parent = talk.primary()
    contexts = []
    for number in range(6):
        private, made = talk.create(parent, SEALED, secrets(b"%d" % number))
        handle = talk.load(parent, private, made)
        contexts.append(talk.save(handle))
        talk.flush(handle)
    for number, context in enumerate(contexts):
        handle = talk.restore(context)
        assert talk.unseal(handle) == b"%d" % number
        talk.flush(handle)
    assert list(tpm.objects) == [parent]


def test_a_full_tpm_takes_no_object():
    _, talk = powered(slots=3)
    context = talk.save(talk.primary())
    talk.primary()
    talk.primary()

    assert refused(talk.primary) == TPM_RC.OBJECT_MEMORY
    assert refused(talk.restore, context) == TPM_RC.OBJECT_MEMORY
    assert refused(talk.external, SIGNING_KEY) == TPM_RC.OBJECT_MEMORY


def test_a_persistent_object_outlives_a_reset_and_is_deleted_by_its_own_handle(tpm, talk):
    handle = talk.primary()
    name = talk.name_of(handle)
    talk.evict(OWNER, handle, 0x81000001)
    tpm.init()
    talk.call(TPM_CC.Startup, (), 0)

    assert talk.name_of(0x81000001) == name
    private, made = talk.create(0x81000001, SEALED, secrets(b"data"))
    assert talk.unseal(talk.load(0x81000001, private, made)) == b"data"
    assert refused(talk.evict, OWNER, 0x81000001, 0x81000002) == 0x28B
    talk.evict(OWNER, 0x81000001, 0x81000001)
    assert refused(talk.call, TPM_CC.ReadPublic, (0x81000001,)) == 0x18B


def test_owner_and_platform_keep_to_their_own_persistent_handles(talk):
    owners, platforms = talk.primary(), talk.primary(hierarchy=PLATFORM)

    assert refused(talk.evict, OWNER, owners, 0x81800000) == 0x1CD
    assert refused(talk.evict, OWNER, platforms, 0x81000001) == 0x285
    assert refused(talk.evict, PLATFORM, owners, 0x81800000) == 0x285
    assert refused(talk.evict, PLATFORM, platforms, 0x81000001) == 0x1CD
    assert refused(talk.evict, OWNER, talk.primary(hierarchy=NULL), 0x81000001) == 0x282
    talk.evict(OWNER, owners, 0x81000001)
    assert refused(talk.evict, OWNER, owners, 0x81000001) == TPM_RC.NV_DEFINED
    talk.evict(PLATFORM, 0x81000001, 0x81000001)


def test_an_external_public_key_is_named_but_has_no_secret(talk):
    made, name, _ = talk.call(TPM_CC.ReadPublic, (talk.primary(SIGNING_KEY),))
    handle = talk.external(made, hierarchy=OWNER)

    assert talk.call(TPM_CC.ReadPublic, (handle,)) == (made, name, name)
    assert refused(talk.evict, OWNER, handle, 0x81000001) == 0x282


def test_an_external_secret_must_belong_to_its_public_area(talk):
    sensitive = TPMT_SENSITIVE(
        sensitiveType=TPM_ALG.KEYEDHASH.value, authValue=b"", seedValue=b"s" * 32, sensitive=b"data"
    )
    public = attrs.evolve(MOVABLE, unique=symmetric_unique(MOVABLE, b"s" * 32, b"data"))

    assert talk.unseal(talk.external(public, sensitive)) == b"data"
    assert refused(talk.external, public, attrs.evolve(sensitive, sensitive=b"date")) == TPM_RC.BINDING
    assert refused(talk.external, public, sensitive, OWNER) == 0x3C5


@pytest.mark.parametrize(("ek", "policy"), [(EK_RSA, True), (EK_ECC, True), (STORAGE_RSA, False)])
def test_a_credential_opens_for_the_pair_of_keys_it_was_made_for(talk, ek, policy):
    key, signer = talk.primary(ek, ENDORSEMENT), talk.primary(SIGNING_KEY)
    blob, secret = talk.call(TPM_CC.MakeCredential, (key,), b"credential", talk.name_of(signer))
    other = talk.primary(attrs.evolve(SIGNING_KEY, objectAttributes=0x40472))

    def authorised():
        if not policy:
            return password()
        session = talk.start(TPM_SE.POLICY)
        parameters = (session.nonce_tpm, b"", b"", 0)
        talk.call(TPM_CC.PolicySecret, (ENDORSEMENT, session.handle), *parameters, auths=[password()])
        return Auth(session=session, attributes=0)

    def activate(handle, blob, secret):
        return talk.call(
            TPM_CC.ActivateCredential, (handle, key), blob, secret, auths=[password(), authorised()]
        )[0]

    assert activate(signer, blob, secret) == b"credential"
    assert refused(activate, other, blob, secret) == 0x1DF
    assert refused(activate, signer, blob[:-1] + bytes([blob[-1] ^ 1]), secret) == 0x1DF


def test_a_credential_needs_a_storage_key(talk):
    assert refused(talk.call, TPM_CC.MakeCredential, (talk.primary(SIGNING_KEY),), b"c", b"") == 0x18A
    make = (talk.call, TPM_CC.MakeCredential)
    assert refused(*make, (talk.primary(),), b"c" * 33, b"") == 0x1D5


@pytest.mark.parametrize("symmetric", [NONE, AES], ids=["no inner wrap", "inner wrap"])
@pytest.mark.parametrize("to", [STORAGE_ECC, STORAGE_RSA, None], ids=["ECC", "RSA", "none"])
def test_a_duplicated_object_works_under_its_new_parent(talk, symmetric, to):
    source = talk.primary(hierarchy=ENDORSEMENT)
    session, digest = talk.duplication_policy()
    private, made = talk.create(source, attrs.evolve(MOVABLE, authPolicy=digest), secrets(b"moved"))
    handle = talk.load(source, private, made)
    target = talk.primary(to or STORAGE_ECC)
    key, moved, seed = talk.call(
        TPM_CC.Duplicate,
        (handle, target if to else NULL),
        b"",
        symmetric,
        auths=[Auth(session=session)],
    )
    area = talk.call(TPM_CC.Import, (target,), key, made, moved, seed, symmetric, auths=[password()])[0]

    assert (b"moved" in moved) == (symmetric is NONE and to is None)
    assert talk.unseal(talk.load(target, area, made)) == b"moved"
    if symmetric is AES:
        import_it = (talk.call, TPM_CC.Import, (target,))
        assert refused(*import_it, key[:-1], made, moved, seed, AES, auths=[password()]) == 0x1D5
        wrong = bytes([key[0] ^ 1]) + key[1:]
        assert refused(*import_it, wrong, made, moved, seed, AES, auths=[password()]) & 0xF00 == 0x300


def test_a_fixed_object_is_not_duplicated_and_the_policy_must_allow_it(talk):
    parent = talk.primary()
    session, digest = talk.duplication_policy()
    fixed = talk.primary(attrs.evolve(STORAGE_ECC, authPolicy=digest))
    duplicate = (talk.call, TPM_CC.Duplicate)

    assert refused(*duplicate, (fixed, parent), b"", NONE, auths=[Auth(session=session)]) == 0x182
    assert refused(*duplicate, (fixed, parent), b"", NONE, auths=[password()]) == TPM_RC.AUTH_TYPE


def test_an_object_that_asks_for_encryption_is_not_duplicated_without(talk):
    session, digest = talk.duplication_policy()
    source = talk.primary(hierarchy=ENDORSEMENT)
    shy = attrs.evolve(MOVABLE, authPolicy=digest, objectAttributes=0x840)
    private, made = talk.create(source, shy, secrets(b"shy"))
    handle = talk.load(source, private, made)
    duplicate = (talk.call, TPM_CC.Duplicate)

    assert refused(*duplicate, (handle, source), b"", NONE, auths=[Auth(session=session)]) == 0x2D6
    assert refused(*duplicate, (handle, NULL), b"", AES, auths=[Auth(session=session)]) == 0x285
    assert refused(*duplicate, (handle, source), b"k" * 15, AES, auths=[Auth(session=session)]) == 0x1D5


def test_a_wrap_moves_from_one_parent_to_another_without_being_opened(talk):
    source, middle, target = talk.primary(hierarchy=ENDORSEMENT), talk.primary(STORAGE_RSA), talk.primary()
    session, digest = talk.duplication_policy()
    private, made = talk.create(source, attrs.evolve(MOVABLE, authPolicy=digest), secrets(b"moved"))
    handle = talk.load(source, private, made)
    _, moved, seed = talk.call(TPM_CC.Duplicate, (handle, middle), b"", NONE, auths=[Auth(session=session)])
    name = name_of(made)
    moved, seed = talk.call(TPM_CC.Rewrap, (middle, target), moved, name, seed, auths=[password()])
    area = talk.call(TPM_CC.Import, (target,), b"", made, moved, seed, NONE, auths=[password()])[0]

    assert talk.unseal(talk.load(target, area, made)) == b"moved"
    rewrap = (talk.call, TPM_CC.Rewrap)
    assert refused(*rewrap, (NULL, target), moved, name, seed, auths=[password()]) == 0x18B
    assert refused(*rewrap, (middle, target), moved, name, b"", auths=[password()]) == 0x18B


def test_create_loaded_makes_primaries_children_and_derived_objects(talk):
    def loaded(parent, public, sensitive=None):
        return talk.call(TPM_CC.CreateLoaded, (parent,), sensitive or secrets(), public, auths=[password()])

    handle, private, made, name = loaded(OWNER, STORAGE_ECC.encode())
    assert private == b""
    assert name == talk.name_of(talk.primary())
    child, private, made, name = loaded(handle, SEALED.encode(), secrets(b"data"))
    assert talk.unseal(child) == talk.unseal(talk.load(handle, private, made)) == b"data"

    deriver = talk.primary(TEMPLATES["derivation parent"])
    plain = attrs.evolve(template(ECC, 0x40052, ECC_NULL)).encode()[:-4]
    label = TPMS_DERIVE(label=b"label", context=b"context").encode()
    first, second = loaded(deriver, plain + label), loaded(deriver, plain + label)
    other = loaded(deriver, plain + TPMS_DERIVE(label=b"label", context=b"other").encode())
    given = loaded(deriver, plain + TPMS_DERIVE(label=b"", context=b"").encode(), secrets(label))
    assert first[1:] == second[1:] == given[1:]
    assert first[3] != other[3]
    assert refused(talk.create, deriver, SEALED, secrets(b"data")) == 0x18A


def test_an_object_survives_in_the_same_bytes_on_two_tpms_with_one_seed():
    def run():
        _, talk = powered()
        parent = talk.primary()
        private, made = talk.create(parent, TEMPLATES["P-256 child"])
        return private, made, talk.save(talk.load(parent, private, made))

    assert run() == run()


@pytest.mark.parametrize("public", TEMPLATES.values(), ids=TEMPLATES)
def test_parameters_of_real_keys_are_supported(talk, public):
    parameters = TPMT_PUBLIC_PARMS(type=public.type, parameters=public.parameters)

    assert talk.call(TPM_CC.TestParms, (), parameters) == ()


def test_the_storage_parent_template_is_a_parent(talk):
    handle = talk.primary(STORAGE_PARENT)

    assert talk.create(handle, SEALED, secrets(b"x"))[1].type == TPM_ALG.KEYEDHASH


@pytest.mark.parametrize("public", [STORAGE_RSA, STORAGE_ECC], ids=["RSA", "ECC"])
def test_no_authorisation_and_no_salt_reaches_the_secret_that_a_public_key_lacks(talk, public):
    policy = talk.start(TPM_SE.POLICY)
    talk.call(TPM_CC.PolicyCommandCode, (policy.handle,), TPM_CC.ActivateCredential.value)
    digest = talk.call(TPM_CC.PolicyGetDigest, (policy.handle,))[0]
    made = talk.call(TPM_CC.ReadPublic, (talk.primary(attrs.evolve(public, authPolicy=digest)),))[0]
    key = talk.external(made)
    activate = (talk.call, TPM_CC.ActivateCredential, (talk.primary(), key), b"blob", b"s" * 256)

    for auth in (password(), Auth(session=policy)):
        assert refused(*activate, auths=[password(), auth]) == TPM_RC.AUTH_UNAVAILABLE
    assert refused(talk.start, salt_key=(key, made)) == 0x18B
    assert refused(talk.create, key, SEALED) == TPM_RC.AUTH_UNAVAILABLE


def test_keys_without_a_name_algorithm_share_no_seed(talk):
    made = talk.call(TPM_CC.ReadPublic, (talk.primary(),))[0]
    key = talk.external(attrs.evolve(made, nameAlg=TPM_ALG.NULL.value, objectAttributes=0x30040))

    assert talk.call(TPM_CC.ReadPublic, (key,))[1:] == (b"", b"")
    assert refused(talk.call, TPM_CC.MakeCredential, (key,), b"", b"name") == TPM_RC.VALUE
    assert refused(talk.call, TPM_CC.MakeCredential, (key,), b"c", b"name") == 0x1D5


def test_a_sequence_is_saved_too_and_is_no_object(talk):
    handle = talk.call(TPM_CC.HashSequenceStart, (), b"", 0xB)[0]
    talk.call(TPM_CC.SequenceUpdate, (handle,), b"data" * 100, auths=[password()])
    context = talk.save(handle)
    again = talk.restore(context)

    results = [
        talk.call(TPM_CC.SequenceComplete, (each,), b"end", NULL, auths=[password()])[0]
        for each in (handle, again)
    ]
    assert results == [sha256(b"data" * 100 + b"end").digest()] * 2
    assert context.savedHandle == 0x80000001


def test_the_largest_object_fits_into_a_context(tpm, talk):
    largest = template(RSA, 0x30072, "0006010000430010" + "0c0000000000", name_alg="000d")
    handle = talk.primary(attrs.evolve(largest, authPolicy=bytes(64)), sensitive=secrets(auth=b"a" * 64))
    context = talk.save(handle)

    assert tpm.objects[talk.restore(context)] == tpm.objects[handle]
    assert len(context.contextBlob) < 2692


def test_a_refused_creation_draws_no_random_numbers(tpm, talk):
    parent, key = talk.primary(), TEMPLATES["AES key"]
    small = talk.primary(template(RSA, 0x30072, "0006008000430010" + "040000000000", name_alg="000d"))
    mine = attrs.evolve(key, objectAttributes=0x60052)
    before = fork_bytes(tpm)

    assert refused(talk.create, parent, mine, secrets(b"k" * 15)) == TPM_RC.KEY_SIZE
    long = attrs.evolve(TEMPLATES["HMAC key"], objectAttributes=0x40052)
    assert refused(talk.create, parent, long, secrets(b"k" * 65)) == TPM_RC.SIZE
    odd = attrs.evolve(TEMPLATES["default child"].parameters, exponent=17)
    child = attrs.evolve(TEMPLATES["default child"], parameters=odd)
    assert refused(talk.create, parent, child) == TPM_RC.RANGE
    assert refused(talk.call, TPM_CC.MakeCredential, (small,), b"c", b"name") == TPM_RC.VALUE
    assert fork_bytes(tpm) == before


def fork_bytes(tpm):
    """Return the next random numbers without drawing them."""
    return pickle.loads(pickle.dumps(tpm.random)).bytes(16)
