"""tpm2-tools seal secrets under every kind of policy; they come out only when the policy holds."""

import pytest

pytestmark = pytest.mark.client

PROTOCOL = "mssim"

SECRET = "a sealed secret"


class Sealer:
    """Seals a secret under a policy digest in a file, and unseals it with a session."""

    def __init__(self, tools):
        self.tools = tools
        tools("createprimary -Q -C o -G ecc -c parent.ctx")
        tools.write("secret", SECRET)

    def seal(self, options="", policy="policy"):
        attributes = "-a 'fixedtpm|fixedparent'" if "-p" not in options else ""
        self.tools(f"create -Q -C parent.ctx -u s.pub -r s.priv -i secret -L {policy} {attributes} {options}")
        self.tools("load -Q -C parent.ctx -u s.pub -r s.priv -c s.ctx")

    def policy(self, *steps, trial=True, name="session"):
        """Run the steps of a policy (`{s}` stands for the session) in a trial or a real session."""
        self.tools(f"startauthsession -Q {'' if trial else '--policy-session'} -S {name}")
        for step in steps:
            self.tools(step.format(s=name))
        if trial:
            self.tools(f"flushcontext {name}")

    def unseal(self, *steps, suffix="", fails=False):
        """Satisfy a policy and unseal."""
        self.policy(*steps, trial=False)
        out = self.tools(f"unseal -c s.ctx -p session:session{suffix}", fails=fails)
        self.tools("flushcontext session")
        return out


@pytest.fixture
def sealer(tools):
    """A sealer with a parent key."""
    return Sealer(tools)


def test_an_authorisation_value_opens_a_seal(sealer, tools):
    tools("create -Q -C parent.ctx -u s.pub -r s.priv -i secret -p secretauth")
    tools("load -Q -C parent.ctx -u s.pub -r s.priv -c s.ctx")
    assert tools("unseal -c s.ctx -p secretauth") == SECRET
    assert "authorization" in tools("unseal -c s.ctx -p wrong", fails=True)


@pytest.mark.parametrize("bank", ["sha1", "sha256", "sha384", "sha512"])
def test_pcrs_open_a_seal_until_they_change(sealer, tools, bank):
    step = f"policypcr -Q -S {{s}} -l {bank}:0,7,16 -L policy"
    sealer.policy(step)
    sealer.seal()
    assert sealer.unseal(step) == SECRET
    tools.write("event", "tampering")
    tools("pcrevent -Q 16 event")
    assert "policy" in sealer.unseal(step, fails=True)
    tools("pcrreset 16")
    assert sealer.unseal(step) == SECRET


def test_pcrs_and_an_authorisation_value_open_a_seal_together(sealer, tools):
    steps = ("policypcr -Q -S {s} -l sha256:7", "policyauthvalue -Q -S {s} -L policy")
    sealer.policy(*steps)
    sealer.seal("-p pin")
    assert sealer.unseal(*steps, suffix="+pin") == SECRET
    sealer.unseal(*steps, suffix="+wrong", fails=True)


def test_a_password_policy_opens_a_seal(sealer, tools):
    step = "policypassword -Q -S {s} -L policy"
    sealer.policy(step)
    sealer.seal("-p pin")
    assert sealer.unseal(step, suffix="+pin") == SECRET
    sealer.unseal(step, suffix="+wrong", fails=True)


@pytest.mark.parametrize("kind", ["rsa", "ecc"])
def test_a_signature_opens_a_seal(sealer, tools, kind):
    tools.run(
        "openssl genrsa -out own.pem 2048"
        if kind == "rsa"
        else "openssl ecparam -name prime256v1 -genkey -noout -out own.pem"
    )
    tools.run("openssl pkey -in own.pem -pubout -out public.pem")
    scheme = "rsassa" if kind == "rsa" else "ecdsa"
    tools(f"loadexternal -Q -C o -G {kind} -u public.pem -c public.ctx -n public.name")
    tools("startauthsession -Q -S session")
    tools(f"policysigned -Q -S session -g sha256 -c public.ctx -f {scheme} --raw-data to_sign")
    tools.run("openssl dgst -sha256 -sign own.pem -out signature to_sign")
    step = f"policysigned -Q -S {{s}} -g sha256 -s signature -f {scheme} -c public.ctx -L policy"
    tools("flushcontext session")
    sealer.policy(step)
    sealer.seal()
    assert sealer.unseal(step) == SECRET


def test_a_signed_policy_can_be_replaced_after_sealing(sealer, tools):
    tools.run("openssl genrsa -out own.pem 2048")
    tools.run("openssl rsa -in own.pem -pubout -out public.pem")
    tools("loadexternal -Q -C o -G rsa -u public.pem -c public.ctx -n public.name")
    sealer.policy("policypcr -Q -S {s} -l sha256:16 -L pcr.policy")
    tools("flushcontext -t")
    sealer.policy("policyauthorize -Q -S {s} -L policy -n public.name -i pcr.policy")
    sealer.seal()
    for event in (None, "an update"):
        if event is not None:
            tools.write("event", event)
            tools("pcrevent -Q 16 event")
            sealer.policy("policypcr -Q -S {s} -l sha256:16 -L pcr.policy")
        tools.run("openssl dgst -sha256 -sign own.pem -out signature pcr.policy")
        tools("loadexternal -Q -C o -G rsa -u public.pem -c public.ctx")
        tools("verifysignature -Q -c public.ctx -g sha256 -m pcr.policy -s signature -t ticket -f rsassa")
        steps = (
            "policypcr -Q -S {s} -l sha256:16",
            "policyauthorize -Q -S {s} -n public.name -i pcr.policy -t ticket",
        )
        assert sealer.unseal(*steps) == SECRET


def test_either_of_two_policies_opens_a_seal(sealer, tools):
    tools.write("event", "another state")
    pcr = "policypcr -Q -S {s} -l sha256:16"
    sealer.policy(pcr + " -L one")
    tools("pcrevent -Q 16 event")
    sealer.policy(pcr + " -L two")
    either = "policyor -Q -S {s} -l sha256:one,two"
    sealer.policy(either + " -L policy")
    sealer.seal()
    assert sealer.unseal(pcr, either) == SECRET
    tools("pcrreset 16")
    assert sealer.unseal(pcr, either) == SECRET
    tools("pcrevent -Q 16 event")
    tools("pcrevent -Q 16 event")
    sealer.policy(pcr, trial=False)
    tools("policyor -Q -S session -l sha256:one,two", fails=True)


def test_a_hierarchys_secret_opens_a_seal(sealer, tools):
    tools("changeauth -Q -c o ownerpw")
    tools("changeauth -Q -c e endorsepw")
    step = "policysecret -Q -S {s} -c o ownerpw -L policy"
    sealer.policy(step)
    tools("create -Q -C parent.ctx -u s.pub -r s.priv -i secret -L policy -a 'fixedtpm|fixedparent'")
    tools("load -Q -C parent.ctx -u s.pub -r s.priv -c s.ctx")
    assert sealer.unseal(step) == SECRET
    sealer.policy(trial=False)
    tools("policysecret -Q -S session -c o wrong", fails=True)


def test_a_ticket_stands_for_an_earlier_secret(sealer, tools):
    sealer.policy("policysecret -Q -S {s} -c o -L policy")
    sealer.seal()
    tools("startauthsession -Q --policy-session -S session")
    tools("policysecret -Q -S session -c o --expiration=-3600 --ticket ticket --timeout timeout")
    tools("flushcontext session")
    tools.write("owner.name", bytes.fromhex("40000001"))
    assert sealer.unseal("policyticket -Q -S {s} -n owner.name --ticket ticket --timeout timeout") == SECRET


def test_a_policy_for_one_command_allows_no_other(sealer, tools):
    step = "policycommandcode -Q -S {s} -L policy TPM2_CC_Unseal"
    sealer.policy(step)
    sealer.seal()
    assert sealer.unseal(step) == SECRET
    sealer.policy("policycommandcode -Q -S {s} TPM2_CC_Sign", trial=False)
    tools("unseal -c s.ctx -p session:session", fails=True)


def test_a_policy_demands_that_an_index_is_written(sealer, tools):
    sealer.policy("policynvwritten -Q -S {s} -L policy s")
    tools("nvdefine -Q -C o -s 8 -L policy -a 'policyread|policywrite|authread|ownerwrite' 0x1500001")
    tools("startauthsession -Q --policy-session -S session")
    tools("policynvwritten -Q -S session s")
    tools.write("content", "12345678")
    tools("nvwrite -Q -C 0x1500001 -P session:session -i content 0x1500001", fails=True)


def test_the_content_of_an_index_opens_a_seal(sealer, tools):
    tools("nvdefine -Q -C o -s 8 -a 'ownerread|ownerwrite|authread' 0x1500010")
    tools.write("content", bytes(7) + b"\5")
    tools("nvwrite -Q -C o -i content 0x1500010")
    tools.write("operand", bytes(7) + b"\5")
    step = "policynv -Q -S {s} -C o -i operand -L policy 0x1500010 eq"
    sealer.policy(step)
    sealer.seal()
    assert sealer.unseal(step) == SECRET
    tools.write("content", bytes(7) + b"\6")
    tools("nvwrite -Q -C o -i content 0x1500010")
    tools("startauthsession -Q --policy-session -S session")
    tools("policynv -Q -S session -C o -i operand 0x1500010 eq", fails=True)


@pytest.mark.parametrize(
    "operation", ["neq", "sgt", "ugt", "slt", "ult", "sge", "uge", "sle", "ule", "bs", "bc"]
)
def test_an_index_is_compared_in_every_way(sealer, tools, operation):
    content, operand = 0x0000000000000C00, {"bs": 0x0400, "bc": 0x0300}.get(operation, 0x0D00)
    if operation in ("sgt", "ugt", "sge", "uge"):
        operand = 0x0B00
    tools("nvdefine -Q -C o -s 8 -a 'ownerread|ownerwrite|authread' 0x1500010")
    tools.write("content", content.to_bytes(8, "big"))
    tools("nvwrite -Q -C o -i content 0x1500010")
    tools.write("operand", operand.to_bytes(8, "big"))
    step = f"policynv -Q -S {{s}} -C o -i operand -L policy 0x1500010 {operation}"
    sealer.policy(step)
    sealer.seal()
    assert sealer.unseal(step) == SECRET


def test_a_policy_in_an_index_opens_a_seal(sealer, tools):
    tools("nvdefine -Q -C o -p nvpass -s 34 -a 'authread|authwrite|ownerread' 0x1500020")
    sealer.policy("policypcr -Q -S {s} -l sha256:0 -L pcr.policy")
    tools.write("content", b"\0\x0b" + tools.read("pcr.policy"))
    tools("nvwrite -Q -P nvpass -i content 0x1500020")
    sealer.policy("policyauthorizenv -Q -S {s} -C 0x1500020 -P nvpass -L policy 0x1500020")
    sealer.seal()
    steps = (
        "policypcr -Q -S {s} -l sha256:0",
        "policyauthorizenv -Q -S {s} -C 0x1500020 -P nvpass 0x1500020",
    )
    assert sealer.unseal(*steps) == SECRET


def test_a_locality_opens_a_seal(sealer, tools):
    step = "policylocality -Q -S {s} -L policy zero"
    sealer.policy(step)
    sealer.seal()
    assert sealer.unseal(step) == SECRET
    sealer.policy("policylocality -Q -S {s} three", trial=False)
    tools("unseal -c s.ctx -p session:session", fails=True)


def test_the_clock_opens_a_seal(sealer, tools):
    step = "policycountertimer -Q -S {s} --ult -L policy resets=1000"
    sealer.policy(step)
    sealer.seal()
    assert sealer.unseal(step) == SECRET


def test_a_policy_names_the_objects_of_a_command(sealer, tools):
    tools("create -Q -C parent.ctx -u p.pub -r p.priv -G ecc")
    tools("load -Q -C parent.ctx -u p.pub -r p.priv -c p.ctx -n p.name")
    tools("readpublic -Q -c parent.ctx -n parent.name")
    tools.write("names", tools.read("p.name") + tools.read("parent.name"))
    tools("startauthsession -Q -S session -g sha256")
    digest = tools.run("openssl dgst -sha256 -binary names")
    tools.write("name.hash", digest)
    tools("policynamehash -Q -S session -L policy -n name.hash")
    assert len(tools.read("policy")) == 32


def test_a_policy_names_the_parameters_of_a_command(sealer, tools):
    sealer.policy("policycommandcode -Q -S {s} -L any TPM2_CC_NV_SetBits")
    tools("nvdefine -Q -C o -s 8 -a 'policywrite|authread|ownerread|ownerwrite|nt=bits' 0x1500030")
    tools("nvsetbits -Q -C o -i 1 0x1500030 --cphash cp.hash")
    step = "policycphash -Q -S {s} -L policy --cphash-input cp.hash"
    sealer.policy(step)
    tools("nvundefine -Q -C o 0x1500030")
    tools("nvdefine -Q -C o -s 8 -a 'authwrite|ownerread|nt=bits' 0x1500030")
    assert len(tools.read("policy")) == 32


def test_a_policy_names_a_template(sealer, tools):
    tools("createprimary -Q -C o -G ecc -c x.ctx --template-data template")
    tools.write("template.hash", tools.run("openssl dgst -sha256 -binary template"))
    tools("startauthsession -Q -S session -g sha256")
    tools("policytemplate -Q -S session -L policy --template-hash template.hash")
    tools("flushcontext session")
    tools("setprimarypolicy -Q -C o -L policy -g sha256")
    tools("startauthsession -Q --policy-session -S session -g sha256")
    tools("policytemplate -Q -S session --template-hash template.hash")
    tools("createprimary -Q -C o -G ecc -c y.ctx -P session:session")
    tools("flushcontext session")
    tools("startauthsession -Q --policy-session -S session -g sha256")
    tools("policytemplate -Q -S session --template-hash template.hash")
    tools("createprimary -Q -C o -G rsa -c z.ctx -P session:session", fails=True)


def test_a_policy_selects_the_parent_of_a_duplicate(sealer, tools):
    tools("createprimary -Q -C o -G rsa -c new.ctx")
    tools("readpublic -Q -c new.ctx -n new.name")
    tools("startauthsession -Q -S session")
    tools("policyduplicationselect -Q -S session -N new.name -L policy")
    tools("flushcontext session")
    tools(
        "create -Q -C parent.ctx -G ecc -u k.pub -r k.priv -L policy -a 'sensitivedataorigin|userwithauth|sign'"
    )
    tools("load -Q -C parent.ctx -u k.pub -r k.priv -c k.ctx -n k.name")
    for target, fails in (("parent.ctx", True), ("new.ctx", False)):
        tools("startauthsession -Q --policy-session -S session")
        tools("policyduplicationselect -Q -S session -N new.name -n k.name")
        tools(f"duplicate -Q -C {target} -c k.ctx -G null -p session:session -r d -s seed", fails=fails)
        tools("flushcontext session")


def test_a_session_begins_anew(sealer, tools):
    tools("startauthsession -Q -S session")
    tools("policypcr -Q -S session -l sha256:0 -L one")
    tools("policyrestart -Q -S session")
    tools("policypcr -Q -S session -l sha256:0 -L two")
    assert tools.read("one") == tools.read("two")
