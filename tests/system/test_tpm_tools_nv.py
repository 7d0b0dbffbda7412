"""tpm2-tools define, write, read, lock and remove NV indices of every kind."""

import pytest

pytestmark = pytest.mark.client

INDEX = "0x1500001"


def test_an_ordinary_index_keeps_what_is_written(tools):
    tools(f"nvdefine -Q -C o -s 32 -a 'ownerread|ownerwrite|policywrite' {INDEX}")
    assert "0x14A" in tools(f"nvread -C o {INDEX}", fails=True)
    tools.write("content", "please read me")
    tools(f"nvwrite -Q -C o -i content {INDEX}")
    assert tools(f"nvread -C o -s 14 {INDEX}") == "please read me"
    assert tools(f"nvread -C o -s 4 --offset 7 {INDEX}") == "read"
    assert "0x1500001" in tools("nvreadpublic")
    tools(f"nvundefine -Q -C o {INDEX}")
    assert "0x1500001" not in tools("nvreadpublic")


def test_an_index_with_an_authorisation_value(tools):
    tools(f"nvdefine -Q -C o -s 8 -p first -a 'authread|authwrite|no_da' {INDEX}")
    tools.write("content", "12345678")
    tools(f"nvwrite -Q -C {INDEX} -P first -i content {INDEX}")
    assert tools(f"nvread -C {INDEX} -P first {INDEX}") == "12345678"
    tools(f"nvread -C {INDEX} -P wrong {INDEX}", fails=True)


def test_a_counter_counts(tools):
    tools(f"nvdefine -Q -C o -s 8 -a 'ownerread|ownerwrite|nt=counter' {INDEX}")
    tools(f"nvincrement -Q -C o {INDEX}")
    first = int.from_bytes(bytes.fromhex(tools.run(f"tpm2_nvread -C o {INDEX}").hex()), "big")
    tools(f"nvincrement -Q -C o {INDEX}")
    second = int.from_bytes(tools.run(f"tpm2_nvread -C o {INDEX}"), "big")
    assert second == first + 1
    tools(f"nvundefine -Q -C o {INDEX}")
    tools(f"nvdefine -Q -C o -s 8 -a 'ownerread|ownerwrite|nt=counter' {INDEX}")
    tools(f"nvincrement -Q -C o {INDEX}")
    assert int.from_bytes(tools.run(f"tpm2_nvread -C o {INDEX}"), "big") == second + 1


def test_bits_are_set_and_stay(tools):
    tools(f"nvdefine -Q -C o -s 8 -a 'ownerread|ownerwrite|nt=bits' {INDEX}")
    tools(f"nvsetbits -Q -C o -i 0x3 {INDEX}")
    tools(f"nvsetbits -Q -C o -i 0x100 {INDEX}")
    assert int.from_bytes(tools.run(f"tpm2_nvread -C o {INDEX}"), "big") == 0x103


@pytest.mark.parametrize("hash_name", ["sha1", "sha256", "sha384", "sha512"])
def test_an_extended_index_holds_the_hash_chain(tools, hash_name):
    tools(f"nvdefine -Q -C o -g {hash_name} -a 'ownerread|ownerwrite|nt=extend' {INDEX}")
    tools.write("content", "measured")
    tools(f"nvextend -Q -C o -i content {INDEX}")
    value = tools.run(f"tpm2_nvread -C o {INDEX}")
    tools.write("chained", bytes(len(value)) + b"measured")
    assert value == tools.run(f"openssl dgst -{hash_name} -binary chained")


def test_an_index_is_locked_against_writing(tools):
    tools(f"nvdefine -Q -C o -s 8 -a 'ownerread|ownerwrite|writedefine' {INDEX}")
    tools.write("content", "12345678")
    tools(f"nvwrite -Q -C o -i content {INDEX}")
    tools(f"nvwritelock -Q -C o {INDEX}")
    assert "0x148" in tools(f"nvwrite -Q -C o -i content {INDEX}", fails=True)
    assert tools(f"nvread -C o {INDEX}") == "12345678"


def test_an_index_is_locked_against_reading_until_the_next_start(tools):
    tools(f"nvdefine -Q -C o -s 8 -a 'ownerread|ownerwrite|read_stclear' {INDEX}")
    tools.write("content", "12345678")
    tools(f"nvwrite -Q -C o -i content {INDEX}")
    tools(f"nvreadlock -Q -C o {INDEX}")
    assert "0x148" in tools(f"nvread -C o {INDEX}", fails=True)
    tools("shutdown -c")
    tools.power_cycle()
    tools("startup -c")
    assert tools(f"nvread -C o {INDEX}") == "12345678"


def test_the_global_lock_closes_the_indices_that_ask_for_it(tools):
    tools.write("content", "12345678")
    tools("nvdefine -Q -C o -s 8 -a 'ownerread|ownerwrite|globallock' 0x1500001")
    tools("nvdefine -Q -C o -s 8 -a 'ownerread|ownerwrite' 0x1500002")
    tools("nvwritelock -Q -C o --global")
    tools("nvwrite -Q -C o -i content 0x1500001", fails=True)
    tools("nvwrite -Q -C o -i content 0x1500002")


@pytest.mark.parametrize("kind", ["pinfail", "pinpass"])
def test_a_pin_index_limits_the_attempts(tools, kind):
    tools(
        f"nvdefine -Q -C o -s 8 -p pin -a 'nt={kind}|ownerread|ownerwrite|authread|no_da|policywrite' {INDEX}"
    )
    tools.write("limit", (3).to_bytes(8, "big"))
    tools(f"nvwrite -Q -C o -i limit {INDEX}")
    before = int.from_bytes(tools.run(f"tpm2_nvread -C o {INDEX}"), "big")
    for _ in range(2):
        if kind == "pinfail":
            tools(f"nvread -C {INDEX} -P wrong {INDEX}", fails=True)
        else:
            tools(f"nvread -C {INDEX} -P pin {INDEX}")
    after = int.from_bytes(tools.run(f"tpm2_nvread -C o {INDEX}"), "big")
    assert (before >> 32, after >> 32) == (0, 2)


def test_an_index_is_removed_only_by_its_policy(tools):
    tools("startauthsession -Q -S session")
    tools("policycommandcode -Q -S session -L policy TPM2_CC_NV_UndefineSpaceSpecial")
    tools("flushcontext session")
    tools(
        f"nvdefine -Q -C p -s 8 -L policy -a 'ppread|ppwrite|authread|policydelete|platformcreate|policywrite' {INDEX}"
    )
    tools(f"nvundefine -Q -C p {INDEX}", fails=True)
    tools("startauthsession -Q --policy-session -S session")
    tools("policycommandcode -Q -S session TPM2_CC_NV_UndefineSpaceSpecial")
    tools(f"nvundefine -Q -C p -S session {INDEX}")


def test_a_policy_opens_an_index(tools):
    tools("startauthsession -Q -S session")
    tools("policypcr -Q -S session -l sha256:16 -L policy")
    tools("flushcontext session")
    tools(f"nvdefine -Q -C o -s 8 -L policy -a 'policyread|policywrite' {INDEX}")
    tools.write("content", "12345678")
    tools("startauthsession -Q --policy-session -S session")
    tools("policypcr -Q -S session -l sha256:16")
    tools(f"nvwrite -Q -C {INDEX} -P session:session -i content {INDEX}")
    tools("flushcontext session")
    tools.write("event", "changed")
    tools("pcrevent -Q 16 event")
    tools("startauthsession -Q --policy-session -S session")
    tools("policypcr -Q -S session -l sha256:16")
    tools(f"nvread -C {INDEX} -P session:session {INDEX}", fails=True)


@pytest.mark.parametrize("kind", ["rsa", "ecc"])
def test_an_index_is_certified(tools, kind):
    tools("createprimary -Q -C o -c primary.ctx")
    tools(f"create -Q -C primary.ctx -G {kind} -u key.pub -r key.priv -c key.ctx")
    tools(f"nvdefine -Q -C o -s 8 -a 'ownerread|ownerwrite|authread|authwrite' {INDEX}")
    tools.write("content", "12345678")
    tools(f"nvwrite -Q -C o -i content {INDEX}")
    scheme = "rsassa" if kind == "rsa" else "ecdsa"
    tools(
        f"nvcertify -Q -C key.ctx -g sha256 -f plain -s {scheme} -o signature --attestation attest --size 8 {INDEX}"
        " -c o"
    )
    tools("readpublic -Q -c key.ctx -f pem -o key.pem")
    tools.run("openssl dgst -sha256 -verify key.pem -signature signature attest")
    assert b"12345678" in tools.read("attest")


def test_the_authorisation_value_of_an_index_changes(tools):
    tools("startauthsession -Q -S session")
    tools("policycommandcode -Q -S session -L policy TPM2_CC_NV_ChangeAuth")
    tools("flushcontext session")
    tools(f"nvdefine -Q -C o -s 8 -p old -L policy -a 'authread|authwrite|no_da' {INDEX}")
    tools("startauthsession -Q --policy-session -S session")
    tools("policycommandcode -Q -S session TPM2_CC_NV_ChangeAuth")
    tools(f"changeauth -Q -c {INDEX} -p session:session new")
    tools.write("content", "12345678")
    tools(f"nvwrite -Q -C {INDEX} -P new -i content {INDEX}")
    tools(f"nvwrite -Q -C {INDEX} -P old -i content {INDEX}", fails=True)
