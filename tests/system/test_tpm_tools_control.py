"""tpm2-tools control the TPM: hierarchies, lockout, clock, PCR banks, self-tests, and every class of capability."""

import re

import pytest

pytestmark = pytest.mark.client

CAPABILITIES = [
    "algorithms",
    "commands",
    "properties-fixed",
    "properties-variable",
    "ecc-curves",
    "handles-permanent",
    "handles-pcr",
    "handles-nv-index",
    "handles-loaded-session",
    "handles-saved-session",
    "handles-transient",
    "handles-persistent",
    "pcrs",
]
NOTHING_YET = [
    "handles-nv-index",
    "handles-loaded-session",
    "handles-saved-session",
    "handles-transient",
    "handles-persistent",
]
"""Classes that are empty in a new TPM."""


@pytest.mark.parametrize("name", CAPABILITIES)
def test_each_class_of_capability_is_told(tools, name):
    text = tools(f"getcap {name}")
    assert bool(text) == (name not in NOTHING_YET)


def test_the_classes_are_all_that_the_tool_knows(tools):
    assert sorted(re.findall(r"^- (\S+)$", tools("getcap -l"), re.MULTILINE)) == sorted(CAPABILITIES)


def test_handles_of_each_kind_are_told_once_there_is_one(tools):
    tools("createprimary -Q -C o -G ecc -c key.ctx")
    tools("evictcontrol -Q -C o -c key.ctx 0x81000009")
    tools("nvdefine -Q -C o -s 8 0x1500009")
    tools("startauthsession -S saved.ctx --policy-session")
    told = {name: tools(f"getcap {name}").lower().split() for name in NOTHING_YET}
    assert told["handles-persistent"] == ["-", "0x81000009"]
    assert told["handles-nv-index"] == ["-", "0x1500009"]
    assert told["handles-transient"] == ([] if tools.frugal else ["-", "0x80000000", "-", "0x80000001"])
    assert told["handles-saved-session"] == ["-", "0x2000000"], "told as an HMAC session, whatever it is"
    assert told["handles-loaded-session"] == []


def test_random_numbers_have_the_size_that_was_asked_for(tools):
    assert len(tools("getrandom --hex 32").strip()) == 64
    tools.write("entropy", "some entropy")
    tools("stirrandom -Q entropy")


def test_self_tests_pass(tools):
    tools("selftest")
    tools("selftest --fulltest")
    tools("incrementalselftest ecc rsa aes")
    assert "success" in tools("gettestresult")


def test_clear_forgets_the_owners_keys_and_secrets(tools):
    tools("changeauth -Q -c o ownerpw")
    tools("createprimary -Q -C o -P ownerpw -G ecc -c a.ctx")
    tools("readpublic -Q -c a.ctx -n before.name")
    tools("evictcontrol -Q -C o -P ownerpw -c a.ctx 0x81000005")
    tools("clear -Q")
    assert "0x81000005" not in tools("getcap handles-persistent").lower()
    tools("createprimary -Q -C o -G ecc -c b.ctx")
    tools("readpublic -Q -c b.ctx -n after.name")
    assert tools.read("before.name") != tools.read("after.name")


def test_clear_can_be_forbidden(tools):
    tools("clearcontrol -Q -C l s")
    assert "0x120" in tools("clear -Q -c l", fails=True)
    tools("clearcontrol -Q -C p c")
    tools("clear -Q -c l")


def test_failures_lock_the_tpm_until_the_lockout_is_reset(tools):
    tools(
        "dictionarylockout -Q --setup-parameters --max-tries=3 --recovery-time=120 --lockout-recovery-time=60"
    )
    tools("createprimary -Q -C o -G ecc -c p.ctx")
    tools("create -Q -C p.ctx -G ecc -p right -u k.pub -r k.priv")
    tools("load -Q -C p.ctx -u k.pub -r k.priv -c k.ctx")
    tools.write("m", "message")
    for _ in range(3):
        tools("sign -Q -c k.ctx -p wrong -g sha256 -o s m", fails=True)
    assert "0x921" in tools("sign -Q -c k.ctx -p right -g sha256 -o s m", fails=True)
    assert "0x3" in tools("getcap properties-variable").partition("LOCKOUT_COUNTER")[2][:20]
    tools("dictionarylockout -Q --clear-lockout")
    tools("sign -Q -c k.ctx -p right -g sha256 -o s m")


@pytest.mark.parametrize("hierarchy", ["o", "e", "p"])
def test_the_secret_of_a_hierarchy_is_needed_once_it_is_set(tools, hierarchy):
    tools(f"changeauth -Q -c {hierarchy} secret")
    tools(f"changeauth -Q -c {hierarchy} other", fails=True)
    tools(f"changeauth -Q -c {hierarchy} -p secret other")


def test_one_wrong_lockout_secret_locks_the_lockout_hierarchy(tools):
    tools("changeauth -Q -c l secret")
    tools("changeauth -Q -c l -p wrong other", fails=True)
    assert "0x921" in tools("changeauth -Q -c l -p secret other", fails=True)


def test_a_hierarchy_is_switched_off(tools):
    tools("hierarchycontrol -Q -C p shEnable clear")
    assert "0x185" in tools("createprimary -Q -C o -G ecc -c p.ctx", fails=True)
    tools("hierarchycontrol -Q -C p shEnable set")
    tools("createprimary -Q -C o -G ecc -c p.ctx")


@pytest.mark.parametrize(("command", "hierarchy"), [("changeeps", "e"), ("changepps", "p")])
def test_a_new_seed_gives_other_primaries(tools, command, hierarchy):
    tools(f"createprimary -Q -C {hierarchy} -G ecc -c a.ctx")
    tools("readpublic -Q -c a.ctx -n before.name")
    tools(f"{command} -Q")
    tools(f"createprimary -Q -C {hierarchy} -G ecc -c b.ctx")
    tools("readpublic -Q -c b.ctx -n after.name")
    assert tools.read("before.name") != tools.read("after.name")


def test_banks_change_at_the_next_start(tools):
    tools("pcrallocate -Q sha1:none+sha256:all+sha384:none+sha512:none")
    tools("shutdown -c")
    tools.power_cycle()
    tools("startup -c")
    assert tools("getcap pcrs").count("[ ]") >= 1
    assert "sha256" in tools("pcrread")


def test_the_clock_goes_forward_only(tools):
    tools("setclock -Q 5000000")
    assert int(tools("readclock").partition("clock:")[2].split()[0]) >= 5000000
    tools("setclock -Q 1", fails=True)
    for rate in ("f", "s", "n"):
        tools(f"clockrateadjust -Q {rate}" if rate != "n" else "clockrateadjust -Q ff")


def test_pcrs_are_extended_read_and_reset(tools):
    digest = "ab" * 32
    tools(f"pcrextend 16:sha256={digest}")
    tools.write("chain", bytes(32) + bytes.fromhex(digest))
    expected = tools.run("openssl dgst -sha256 -binary chain").hex().upper()
    assert expected in tools("pcrread sha256:16")
    tools("pcrreset 16")
    assert "0" * 64 in tools("pcrread sha256:16")
    assert "0x907" in tools("pcrreset 0", fails=True)


def test_an_event_is_hashed_into_every_bank(tools):
    tools.write("event", "x" * 3000)
    tools("pcrevent -Q 23 event")
    digest = tools.run("openssl dgst -sha384 -binary event")
    tools.write("chain", bytes(48) + digest)
    expected = tools.run("openssl dgst -sha384 -binary chain").hex().upper()
    assert expected in tools("pcrread sha384:23")


def test_an_orderly_shutdown_resumes(tools):
    tools("pcrextend 3:sha256=" + "ab" * 32)
    before = tools("pcrread sha256:3")
    tools("shutdown")
    tools.power_cycle()
    tools("startup")
    assert tools("pcrread sha256:3") == before


def test_a_response_code_is_explained(tools):
    assert "locality" in tools("rc_decode 0x907")
