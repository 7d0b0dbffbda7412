"""tpm2-tools prove what a TPM holds: quotes, certificates, credentials, audits, and event logs."""

import pytest

pytestmark = pytest.mark.client

PROTOCOL = "mssim"

NONCE = "abc123abc123"


def endorsement_and_attestation_keys(tools, kind="ecc", scheme="ecdsa"):
    tools(f"createek -Q -c ek.ctx -G {'ecc' if kind == 'ecc' else 'rsa'} -u ek.pub")
    tools(f"createak -Q -C ek.ctx -c ak.ctx -G {kind} -g sha256 -s {scheme} -u ak.pub -f pem -n ak.name")


@pytest.mark.parametrize("bank", ["sha1", "sha256", "sha384", "sha512"])
@pytest.mark.parametrize(("kind", "scheme"), [("ecc", "ecdsa"), ("rsa", "rsassa")])
def test_a_quote_of_each_bank_is_accepted(tools, bank, kind, scheme):
    endorsement_and_attestation_keys(tools, kind, scheme)
    tools.write("event", "something")
    tools("pcrevent -Q 16 event")
    tools(
        f"quote -Q -c ak.ctx -l {bank}:0,1,16,23 -q {NONCE} -m quote -s signature -o pcrs -g sha256 --scheme {scheme}"
    )
    tools(f"checkquote -Q -u ak.pub -m quote -s signature -f pcrs -q {NONCE} -g sha256")
    tools("checkquote -Q -u ak.pub -m quote -s signature -f pcrs -q abc124 -g sha256", fails=True)


def test_openssl_accepts_a_quote_with_rsapss(tools):
    endorsement_and_attestation_keys(tools, "rsa", "rsapss")
    tools(f"quote -Q -c ak.ctx -l sha256:0,7 -q {NONCE} -m quote -s signature -f plain --scheme rsapss")
    options = "-sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:auto"
    tools.run(f"openssl dgst -sha256 -verify ak.pub {options} -signature signature quote")


def test_a_quote_of_all_banks_at_once_is_accepted(tools):
    endorsement_and_attestation_keys(tools)
    tools(
        f"quote -Q -c ak.ctx -l sha1:0,7+sha256:0,7+sha384:0+sha512:0 -q {NONCE} -m quote -s signature -o pcrs"
    )
    tools(f"checkquote -Q -u ak.pub -m quote -s signature -f pcrs -q {NONCE}")


@pytest.mark.parametrize("kind", ["rsa", "ecc"])
def test_a_credential_proves_that_both_keys_are_in_one_tpm(tools, kind):
    endorsement_and_attestation_keys(tools, kind, "rsassa" if kind == "rsa" else "ecdsa")
    tools.write("secret", "12345678")
    name = tools.read("ak.name").hex()
    tools(f"makecredential -Q -u ek.pub -s secret -n {name} -o credential")
    activate_credential(tools)
    assert tools.read("opened") == b"12345678"


def activate_credential(tools):
    tools("startauthsession -Q --policy-session -S session")
    tools("policysecret -Q -S session -c e")
    tools("activatecredential -Q -c ak.ctx -C ek.ctx -i credential -o opened -P session:session")
    tools("flushcontext session")


def test_a_credential_for_another_key_stays_closed(tools):
    endorsement_and_attestation_keys(tools)
    tools.write("secret", "12345678")
    name = "000b" + "00" * 32
    tools(f"makecredential -Q -u ek.pub -s secret -n {name} -o credential")
    tools("startauthsession -Q --policy-session -S session")
    tools("policysecret -Q -S session -c e")
    tools("activatecredential -Q -c ak.ctx -C ek.ctx -i credential -o opened -P session:session", fails=True)


def test_a_credential_made_without_a_tpm_opens_too(tools):
    endorsement_and_attestation_keys(tools, "rsa", "rsassa")
    tools("readpublic -Q -c ek.ctx -f pem -o ek.pem")
    tools.write("secret", "12345678")
    tools(
        f"makecredential -Q -T none -G rsa -u ek.pem -s secret -n {tools.read('ak.name').hex()} -o credential"
    )
    activate_credential(tools)
    assert tools.read("opened") == b"12345678"


def make_signer(tools, kind="ecc"):
    tools("createprimary -Q -C e -c primary.ctx")
    tools(f"create -Q -C primary.ctx -G {kind} -u key.pub -r key.priv -c key.ctx")
    tools("readpublic -Q -c key.ctx -f pem -o key.pem")
    return "rsassa" if kind == "rsa" else "ecdsa"


@pytest.mark.parametrize("kind", ["rsa", "ecc"])
def test_a_key_is_certified(tools, kind):
    scheme = make_signer(tools, kind)
    tools(f"certify -Q -c primary.ctx -C key.ctx -g sha256 -f plain -s signature -o attest --scheme {scheme}")
    tools.run("openssl dgst -sha256 -verify key.pem -signature signature attest")


def test_the_creation_of_a_key_is_certified(tools):
    make_signer(tools)
    tools("createprimary -Q -C o -c new.ctx --creation-data data -d hash -t ticket")
    tools(
        "certifycreation -Q -C key.ctx -c new.ctx -d hash -t ticket -g sha256 -s ecdsa -f plain"
        " -o signature --attestation attest"
    )
    tools.run("openssl dgst -sha256 -verify key.pem -signature signature attest")


def test_the_time_is_signed(tools):
    make_signer(tools)
    tools(f"gettime -Q -c key.ctx -q {NONCE} -g sha256 -f plain -o signature --attestation attest")
    tools.run("openssl dgst -sha256 -verify key.pem -signature signature attest")


def test_an_audit_session_yields_a_signed_digest(tools):
    make_signer(tools)
    tools("startauthsession -Q --audit-session -S session")
    tools("getrandom -Q 8 -S session -o random", fails=False)
    tools("getsessionauditdigest -Q -c key.ctx -g sha256 -m attest -s signature -f plain -S session")
    tools.run("openssl dgst -sha256 -verify key.pem -signature signature attest")


def test_audited_commands_yield_a_signed_digest(tools):
    make_signer(tools)
    tools("setcommandauditstatus -Q -C o TPM2_CC_GetRandom")
    tools("getrandom -Q 8 -o random")
    tools("getcommandauditdigest -Q -c key.ctx -g sha256 -m attest -s signature -f plain")
    tools.run("openssl dgst -sha256 -verify key.pem -signature signature attest")


@pytest.mark.parametrize(
    "bound", ["", "--tpmkey-context primary.ctx", "--tpmkey-context primary.ctx --bind-context primary.ctx"]
)
def test_an_encrypted_session_hides_parameters_and_still_works(tools, bound):
    tools("createprimary -Q -C o -G ecc -c primary.ctx")
    tools(f"startauthsession -Q --hmac-session -S session {bound}")
    tools("sessionconfig session --enable-decrypt --enable-encrypt")
    tools.write("secret", "a hidden secret")
    tools("create -Q -C primary.ctx -P session:session -i secret -u s.pub -r s.priv")
    tools("load -Q -C primary.ctx -u s.pub -r s.priv -c s.ctx")
    assert tools("unseal -c s.ctx -p session:session") == "a hidden secret"
    tools("flushcontext session")
    assert not any("a hidden" in line for line in tools.trace)


def test_a_salted_session_with_an_rsa_key_works(tools):
    tools("createprimary -Q -C o -G rsa -c primary.ctx")
    tools("startauthsession -Q --hmac-session -S session --tpmkey-context primary.ctx")
    tools("sessionconfig session --enable-encrypt")
    assert len(tools("getrandom --hex 16 -S session").strip()) == 32
