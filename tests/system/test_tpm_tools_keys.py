"""tpm2-tools make, load, use and move keys; openssl agrees with what leaves the TPM."""

import pytest

pytestmark = pytest.mark.client

SLOTS = 16  # of the device in conftest.py
MESSAGE = "what is to be signed"


@pytest.fixture
def parent(tools):
    """A storage parent in the owner hierarchy, in `parent.ctx`."""
    tools("createprimary -Q -C o -g sha256 -G ecc -c parent.ctx")
    tools.write("message", MESSAGE)
    return "parent.ctx"


def make(tools, options, name="key"):
    tools(f"create -Q -C parent.ctx {options} -u {name}.pub -r {name}.priv")
    tools(f"load -Q -C parent.ctx -u {name}.pub -r {name}.priv -c {name}.ctx")


@pytest.mark.parametrize("scheme", ["rsassa", "rsapss"])
@pytest.mark.parametrize("hash_name", ["sha1", "sha256", "sha384", "sha512"])
def test_openssl_accepts_rsa_signatures(tools, parent, scheme, hash_name):
    make(tools, "-G rsa2048")
    tools(f"sign -Q -c key.ctx -g {hash_name} -s {scheme} -f plain -o signature message")
    tools("readpublic -Q -c key.ctx -f pem -o key.pem")
    padding = "-sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:auto" if scheme == "rsapss" else ""
    tools.run(f"openssl dgst -{hash_name} -verify key.pem {padding} -signature signature message")


@pytest.mark.parametrize("curve", ["ecc256", "ecc384"])
def test_openssl_accepts_ecdsa_signatures(tools, parent, curve):
    make(tools, f"-G {curve}")
    tools("sign -Q -c key.ctx -g sha256 -s ecdsa -f plain -o signature message")
    tools("readpublic -Q -c key.ctx -f pem -o key.pem")
    tools.run("openssl dgst -sha256 -verify key.pem -signature signature message")


@pytest.mark.parametrize("kind", ["rsa2048", "ecc256"])
def test_the_tpm_accepts_its_own_signature_and_refuses_it_for_another_message(tools, parent, kind):
    make(tools, f"-G {kind}")
    tools("sign -Q -c key.ctx -g sha256 -o signature message")
    tools("verifysignature -Q -c key.ctx -g sha256 -m message -s signature -t ticket")
    tools.write("other", "another message")
    tools("verifysignature -Q -c key.ctx -g sha256 -m other -s signature", fails=True)


@pytest.mark.parametrize(
    ("generate", "kind", "name"),
    [
        ("openssl genrsa -out own.pem 2048", "rsa", "rsassa"),
        ("openssl ecparam -name prime256v1 -genkey -noout -out own.pem", "ecc", "ecdsa"),
    ],
)
def test_the_tpm_verifies_what_openssl_signed_with_a_key_from_outside(tools, parent, generate, kind, name):
    tools.run(generate)
    tools.run(
        "openssl ec -in own.pem -pubout -out public.pem"
        if kind == "ecc"
        else "openssl rsa -in own.pem -pubout -out public.pem"
    )
    tools.run("openssl dgst -sha256 -sign own.pem -out signature message")
    tools(f"loadexternal -Q -C o -G {kind} -u public.pem -c public.ctx")
    tools(f"verifysignature -Q -c public.ctx -g sha256 -m message -f {name} -s signature -t ticket")


@pytest.mark.parametrize("scheme", ["rsaes", "oaep", "null"])
def test_rsa_decrypts_what_was_encrypted(tools, parent, scheme):
    make(tools, "-G rsa2048")
    secret = "x" * 256 if scheme == "null" else "a secret"
    tools.write("plain", "\0" + secret[1:] if scheme == "null" else secret)
    tools(f"rsaencrypt -Q -c key.ctx -s {scheme} -o cipher plain")
    tools(f"rsadecrypt -Q -c key.ctx -s {scheme} -o back cipher")
    assert tools.read("back") == tools.read("plain")


def test_rsa_decrypts_what_openssl_encrypted(tools, parent):
    make(tools, "-G rsa2048")
    tools("readpublic -Q -c key.ctx -f pem -o key.pem")
    tools.write("plain", "a secret from outside")
    tools.run(
        "openssl pkeyutl -encrypt -pubin -inkey key.pem -in plain -out cipher"
        " -pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256"
    )
    tools("rsadecrypt -Q -c key.ctx -s oaep -o back cipher")
    assert tools.read("back") == b"a secret from outside"
    tools.run("openssl pkeyutl -encrypt -pubin -inkey key.pem -in plain -out cipher")
    tools("rsadecrypt -Q -c key.ctx -s rsaes -o back cipher")
    assert tools.read("back") == b"a secret from outside"


def test_ecdh_gives_both_sides_the_same_secret(tools, parent):
    make(tools, "-G ecc256:ecdh -a 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|decrypt'")
    tools("ecdhkeygen -Q -u point -o secret -c key.ctx")
    tools("ecdhzgen -Q -u point -o again -c key.ctx")
    assert tools.read("secret") == tools.read("again")


@pytest.mark.parametrize("mode", ["cfb", "cbc", "ctr", "ofb"])
def test_aes_decrypts_what_it_encrypted(tools, parent, mode):
    make(tools, f"-G aes128{mode}")
    tools.write("plain", "sixteen bytes ok" * 4)
    tools.write("iv", bytes(range(16)))
    tools("encryptdecrypt -Q -c key.ctx -t iv -o cipher plain")
    tools("encryptdecrypt -Q -d -c key.ctx -t iv -o back cipher")
    assert tools.read("back") == tools.read("plain") != tools.read("cipher")


def test_openssl_decrypts_what_an_imported_aes_key_encrypted(tools, parent):
    tools.write("aes.key", bytes(range(16)))
    tools("import -Q -C parent.ctx -G aes128cfb -i aes.key -u key.pub -r key.priv")
    tools("load -Q -C parent.ctx -u key.pub -r key.priv -c key.ctx")
    tools.write("plain", "some plain text")
    tools.write("iv", bytes(16))
    tools("encryptdecrypt -Q -c key.ctx -t iv -o cipher plain")
    key, zero = bytes(range(16)).hex(), bytes(16).hex()
    assert tools.run(f"openssl enc -d -aes-128-cfb -K {key} -iv {zero} -in cipher") == b"some plain text"


def test_an_hmac_key_gives_the_hmac_that_openssl_computes(tools, parent):
    tools.write("hmac.key", "my hmac key")
    tools("import -Q -C parent.ctx -G hmac -i hmac.key -u key.pub -r key.priv")
    tools("load -Q -C parent.ctx -u key.pub -r key.priv -c key.ctx")
    tools("hmac -Q -c key.ctx -g sha256 -o mac message")
    expected = tools.run("openssl dgst -sha256 -hmac 'my hmac key' -binary message")
    assert tools.read("mac") == expected


def test_an_hmac_of_long_data_runs_as_a_sequence(tools, parent):
    make(tools, "-G hmac")
    tools.write("long", bytes(5000))
    tools("hmac -Q -c key.ctx -g sha256 -o first long")
    tools("hmac -Q -c key.ctx -g sha256 -o second long")
    assert tools.read("first") == tools.read("second")
    assert len(tools.read("first")) == 32


@pytest.mark.parametrize("size", [20, 5000])
@pytest.mark.parametrize("hash_name", ["sha1", "sha256", "sha384", "sha512"])
def test_the_tpm_hashes_as_openssl_does(tools, size, hash_name):
    tools.write("data", bytes(range(256)) * 20)
    tools.write("data", tools.read("data")[:size])
    tools(f"hash -Q -C o -g {hash_name} -o digest data")
    assert tools.read("digest") == tools.run(f"openssl dgst -{hash_name} -binary data")


def test_a_persistent_key_survives_a_power_cycle(tools, parent):
    make(tools, "-G ecc256")
    tools("evictcontrol -Q -C o -c key.ctx 0x81000123")
    tools("readpublic -Q -c 0x81000123 -f pem -o before.pem")
    tools("shutdown -c")
    tools.power_cycle()
    tools("startup -c")
    assert "0x81000123" in tools("getcap handles-persistent").lower()
    tools("readpublic -Q -c 0x81000123 -f pem -o after.pem")
    assert tools.read("before.pem") == tools.read("after.pem")
    tools("evictcontrol -Q -C o -c 0x81000123")
    assert "0x81000123" not in tools("getcap handles-persistent").lower()


def test_a_changed_authorisation_value_replaces_the_old_one(tools, parent):
    make(tools, "-G ecc256 -p old")
    tools("changeauth -Q -C parent.ctx -c key.ctx -p old -r new.priv new")
    tools("load -Q -C parent.ctx -u key.pub -r new.priv -c new.ctx")
    tools("sign -Q -c new.ctx -p new -g sha256 -o signature message")
    tools("sign -Q -c new.ctx -p old -g sha256 -o signature message", fails=True)


@pytest.mark.parametrize(
    ("generate", "kind"),
    [
        ("openssl genrsa -out own.pem 2048", "rsa"),
        ("openssl ecparam -name prime256v1 -genkey -noout -out own.pem", "ecc"),
    ],
)
def test_an_imported_key_signs_for_its_owner(tools, parent, generate, kind):
    tools.run(generate)
    tools(f"import -Q -C parent.ctx -G {kind} -i own.pem -u key.pub -r key.priv")
    tools("load -Q -C parent.ctx -u key.pub -r key.priv -c key.ctx")
    tools("sign -Q -c key.ctx -g sha256 -f plain -o signature message")
    tools.run("openssl pkey -in own.pem -pubout -out own.pub.pem")
    tools.run("openssl dgst -sha256 -verify own.pub.pem -signature signature message")


@pytest.mark.parametrize("inner", ["null", "aes"])
def test_a_key_moves_to_another_parent_by_duplication(tools, parent, inner):
    tools("createprimary -Q -C o -g sha256 -G rsa -c new.ctx -p other")
    tools("startauthsession -Q -S dup.session")
    tools("policycommandcode -Q -S dup.session -L dup.policy TPM2_CC_Duplicate")
    tools("flushcontext dup.session")
    make(tools, "-G ecc256 -L dup.policy -a 'sensitivedataorigin|userwithauth|sign'")
    tools("readpublic -Q -c key.ctx -n first.name")
    tools("startauthsession -Q --policy-session -S dup.session")
    tools("policycommandcode -Q -S dup.session -L dup.policy TPM2_CC_Duplicate")
    wrapped = "" if inner == "null" else "-k inner.key"
    given = "-o inner.key" if inner != "null" else ""
    tools(
        f"duplicate -Q -C new.ctx -c key.ctx -G {inner} {given} -p session:dup.session -r moved.dup -s moved.seed"
    )
    tools("flushcontext dup.session")
    tools(
        f"import -Q -C new.ctx -P other -u key.pub -i moved.dup -r moved.priv -s moved.seed {wrapped} -L dup.policy"
    )
    tools("load -Q -C new.ctx -P other -u key.pub -r moved.priv -c moved.ctx -n moved.name")
    assert tools.read("moved.name") == tools.read("first.name")
    tools("sign -Q -c moved.ctx -g sha256 -o signature message")
    tools("verifysignature -Q -c key.ctx -g sha256 -m message -s signature")


def test_create_and_load_in_one_command(tools, parent):
    tools("create -Q -C parent.ctx -G ecc256 -u key.pub -r key.priv -c key.ctx")
    tools("sign -Q -c key.ctx -g sha256 -o signature message")
    tools("verifysignature -Q -c key.ctx -g sha256 -m message -s signature")


@pytest.mark.parametrize("hash_name", ["sha1", "sha384", "sha512"])
@pytest.mark.parametrize("kind", ["rsa2048", "ecc256", "aes128cfb", "hmac"])
def test_keys_are_created_with_every_name_algorithm(tools, parent, hash_name, kind):
    make(tools, f"-G {kind} -g {hash_name}")
    assert hash_name in tools("readpublic -c key.ctx")


@pytest.mark.parametrize("kind", ["rsa", "ecc", "ecc384", "keyedhash", "aes"])
@pytest.mark.parametrize("hierarchy", ["o", "e", "p", "n"])
def test_the_same_primary_comes_out_again(tools, hierarchy, kind):
    kind_option = "-G aes128cfb -a 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign|decrypt'"
    option = kind_option if kind == "aes" else "-G hmac" if kind == "keyedhash" else f"-G {kind}"
    if kind == "keyedhash":
        option += " -a 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign'"
    for number in (1, 2):
        tools(f"createprimary -Q -C {hierarchy} {option} -c first.ctx")
        tools(f"readpublic -Q -c first.ctx -n {number}.name")
    assert tools.read("1.name") == tools.read("2.name")


def test_more_contexts_are_saved_than_slots_exist(tools, parent):
    for number in range(SLOTS + 4):
        tools(f"create -Q -C parent.ctx -G ecc256 -u {number}.pub -r {number}.priv")
        tools(f"load -Q -C parent.ctx -u {number}.pub -r {number}.priv -c {number}.ctx")
        tools("flushcontext -t")
    for number in range(SLOTS + 4):
        tools(f"sign -Q -c {number}.ctx -g sha256 -o {number}.sig message")
        tools("flushcontext -t")


def test_a_full_tpm_says_so_and_goes_on_after_a_flush(tools):
    text = tools("createprimary -C o -G ecc -c primary.ctx")
    assert "name-alg" in text
    for _ in range(SLOTS - 1):
        tools("createprimary -Q -C o -G ecc")
    assert "0x902" in tools("createprimary -Q -C o -G ecc", fails=True)
    tools("flushcontext -t")
    tools("createprimary -Q -C o -G ecc")


def test_a_two_phase_exchange_runs(tools):
    tools("createprimary -Q -C o -c primary.ctx")
    tools(
        "create -Q -C primary.ctx -c key.ctx -u key.pub -r key.priv -G ecc256:ecdh"
        " -a 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|decrypt'"
    )
    tools("ecephemeral -Q -u ephemeral.q -t ephemeral.counter ecc256")
    tools("ecdhkeygen -Q -u static.q -o static.z -c key.ctx")
    tools(
        "zgen2phase -Q -c key.ctx --static-public static.q --ephemeral-public ephemeral.q"
        " -t 0 --output-Z1 z1 --output-Z2 z2"
    )
    assert tools.read("z1") == tools.read("static.z")


def test_an_anonymous_signature_begins_with_a_commitment(tools, parent):
    make(tools, "-G ecc256:ecdaa -a 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign'")
    tools("commit -Q -c key.ctx -t counter -u point.q")
    tools("sign -Q -c key.ctx -g sha256 -s ecdaa --commit-index 0 -o signature message")
    assert len(tools.read("signature")) > 64


def test_parameters_are_tested(tools):
    for good in ("rsa2048", "ecc256", "aes128cfb", "hmac", "rsa2048:rsassa-sha256"):
        tools(f"testparms {good}")
    for bad in ("rsa1000", "ecc999"):
        tools(f"testparms {bad}", fails=True)
