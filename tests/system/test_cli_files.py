"""The commands that read files which nobody here wrote, and those that make signed images."""

import hashlib
import json
import shutil

import pytest


@pytest.fixture
def payload(tmp_path):
    """A folder with two files, to be packed."""
    folder = tmp_path / "payload"
    (folder / "opt" / "tool").mkdir(parents=True)
    (folder / "opt" / "tool" / "run").write_bytes(b"#!/bin/sh\n")
    (folder / "opt" / "tool" / "data").write_bytes(bytes(range(256)))
    return folder


def _logs(vectors):
    return json.loads((vectors / "eventlogs" / "expected.json").read_text())


@pytest.mark.vectors
def test_event_logs_of_real_machines_replay_to_their_pcrs(vmksim, vectors):
    for name, expected in _logs(vectors).items():
        status, out, err = vmksim("eventlog", "replay", "--json", vectors / "eventlogs" / name)
        if expected["must"] == "reject":
            assert (status, out) == (2, "")
            assert len(err.splitlines()) == 1
        else:
            assert status == 0
            assert json.loads(out) == expected["replay"]


@pytest.mark.vectors
def test_the_report_of_a_real_host_matches_in_its_launch_pcrs(vmksim, vectors):
    status, out, _ = vmksim("tpmreport", "replay", vectors / "esxi_txt_report.json", "--json")
    assert status == 0
    assert json.loads(out)["matches"] == [17, 18, 19, 20, 21]
    status, out, _ = vmksim("tpmreport", "replay", vectors / "esxi_txt_report_truncated.xml")
    assert status == 1
    assert "reported value of PCR 20" in out


@pytest.mark.vectors
def test_a_real_vib_is_taken_apart(vmksim, vectors):
    path = vectors / "vibs" / "ghettoVCB.vib"
    status, out, _ = vmksim("image", "inspect", path)
    assert status == 0
    assert out.count("/ghettovcb/") == 6
    assert "CommunitySupported" in out
    assert "WRONG" not in out
    status, out, _ = vmksim("image", "verify", path, "--seed", 0)
    assert "nobody: it is unsigned" in out


COMMUNITY_HOST = """
name = "community"
duration = "3s"
[host.firmware]
secure_boot = false
[image]
modules = 2
module_size = "2KiB"
acceptance = "CommunitySupported"
vibs = ["ghettoVCB.vib"]
[vcenter]
[expect]
attestation = "notAccepted"
component = "payload1"
"""


@pytest.mark.vectors
def test_a_community_vib_is_refused_by_a_host_at_partner_level_and_found_out_when_it_is_let_in(
    vmksim, vectors, tmp_path
):
    shutil.copy(vectors / "vibs" / "ghettoVCB.vib", tmp_path)
    strict = tmp_path / "strict.toml"
    strict.write_text(COMMUNITY_HOST.replace('"CommunitySupported"', '"PartnerSupported"'))
    status, _, err = vmksim("run", strict)
    assert status == 2
    assert "image.vibs[0]: ghettoVCB.vib is refused: [AcceptanceConfigError]" in err
    assert (
        "acceptance level is community, which is not compliant with the ImageProfile acceptance level partner"
        in err
    )

    lax = tmp_path / "lax.toml"
    lax.write_text(COMMUNITY_HOST)
    status, out, _ = vmksim("run", lax, "--out", tmp_path / "out")
    assert status == 0, out
    assert b"payload1" in (tmp_path / "out" / "eventlog.bin").read_bytes()

    guarded = tmp_path / "guarded.toml"
    guarded.write_text(COMMUNITY_HOST.replace("false", "true"))
    status, out, _ = vmksim("run", guarded)
    assert status == 1
    assert "refused at secureboot" in out


def test_a_vib_is_built_signed_inspected_and_verified(vmksim, payload, tmp_path):
    plain, signed = tmp_path / "plain.vib", tmp_path / "signed.vib"
    build = ("image", "build", payload, "--name", "tool", "--version", "1.0-1", "--vendor", "Maker")
    assert vmksim(*build, "--out", plain)[0] == 0
    status, out, _ = vmksim("image", "inspect", plain)
    assert status == 0
    assert "opt/tool/data" in out
    assert vmksim("image", "sign", plain, "--level", "PartnerSupported", "--seed", 3, "--out", signed)[0] == 0
    status, out, _ = vmksim("image", "verify", signed, "--seed", 3)
    assert status == 0
    assert "acceptance level: PartnerSupported" in out
    status, out, err = vmksim("image", "verify", signed, "--seed", 4)
    assert (status, out) == (1, "")
    assert "trusted root" in err


def test_building_twice_gives_the_same_bytes(vmksim, payload, tmp_path):
    build = (
        "image",
        "build",
        payload,
        "--name",
        "tool",
        "--version",
        "1.0-1",
        "--vendor",
        "Maker",
        "--seed",
        1,
    )
    digests = []
    for name in ("one.vib", "two.vib"):
        vmksim(*build, "--level", "VMwareAccepted", "--out", tmp_path / name)
        digests.append(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert digests[0] == digests[1]


def test_each_flipped_bit_of_a_sample_makes_verify_fail(vmksim, payload, tmp_path):
    path = tmp_path / "a.vib"
    vmksim(
        *("image", "build", payload, "--name", "tool", "--version", "1.0-1", "--vendor", "Maker"),
        *("--seed", 1, "--level", "PartnerSupported", "--out", path),
    )
    good = path.read_bytes()
    for place in range(0, len(good), len(good) // 40):
        data = bytearray(good)
        data[place] ^= 1
        path.write_bytes(data)
        status, out, _ = vmksim("image", "verify", path, "--seed", 1)
        assert status in (1, 2), f"byte {place}: {out}"


def test_a_vib_signed_in_the_world_of_a_seed_boots_on_its_hosts(vmksim, payload, tmp_path):
    vmksim(
        *("image", "build", payload, "--name", "tool", "--version", "1.0-1", "--vendor", "Maker"),
        *("--seed", 5, "--level", "PartnerSupported", "--out", tmp_path / "a.vib"),
    )
    path = tmp_path / "s.toml"
    text = COMMUNITY_HOST.replace("ghettoVCB.vib", "a.vib").replace(
        '"CommunitySupported"', '"PartnerSupported"'
    )
    text = text.replace("secure_boot = false", "secure_boot = true")
    text = text.replace('"notAccepted"', '"accepted"').replace('component = "payload1"\n', "")
    path.write_text(text)
    status, out, _ = vmksim("run", path, "--seed", 5)
    assert status == 0, out
    status, _, err = vmksim("run", path, "--seed", 6)
    assert status == 2
    assert "image.vibs[0]" in err


def test_a_real_shared_object_is_packed_signed_and_loaded(vmksim, tmp_path):
    import _ctypes

    vmksim(
        *("image", "build", _ctypes.__file__, "--module", "--name", "pyctypes", "--version", "1.0-1"),
        *("--vendor", "Maker", "--seed", 0, "--level", "PartnerSupported", "--out", tmp_path / "m.vib"),
    )
    path = tmp_path / "s.toml"
    text = 'duration = "1s"\n[image]\nmodules = 1\nmodule_size = "2KiB"\nvibs = ["m.vib"]\n'
    path.write_text(text)
    status, out, _ = vmksim("run", path, "--json")
    assert (status, json.loads(out)["modules_refused"]) == (0, ["pyctypes"])  # it needs a whole interpreter
    path.write_text(text + "[kernel]\nstrict_symbols = false\n")
    status, out, _ = vmksim("run", path, "--json")
    assert status == 0, out
    (module,) = [module for module in json.loads(out)["modules"] if module["name"] == "pyctypes"]
    assert module["acceptance_level"] == "PartnerSupported"
    assert module["base"] % 4096 == 0


def test_a_boot_bank_is_written_verified_and_a_changed_file_is_named(vmksim, tmp_path):
    bank = tmp_path / "bank"
    assert vmksim("image", "bank", bank, "--modules", 2, "--seed", 3)[0] == 0
    status, out, _ = vmksim("image", "verify", bank, "--seed", 3)
    assert status == 0
    assert "all 4 VIBs verified" in out
    assert vmksim("image", "inspect", bank)[0] == 0
    data = bytearray((bank / "s.v00").read_bytes())
    data[100] ^= 1
    (bank / "s.v00").write_bytes(data)
    status, out, _ = vmksim("image", "verify", bank, "--seed", 3)
    assert status == 1
    assert "file s.v00" in out
    assert vmksim("image", "inspect", bank)[0] == 1


def test_keys_and_roots_may_be_pem_files(vmksim, payload, tmp_path):
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    from sim.core.rng import Rng
    from sim.image.tool import trust_as_pem
    from sim.scenario.world import world_pki

    pki = world_pki(Rng(9))
    signer = pki.signer("partner")
    key = serialization.load_der_private_key(signer.private_key_der, None)
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    roots, issuers = trust_as_pem(pki.trust)
    (tmp_path / "roots.pem").write_bytes(roots)
    (tmp_path / "partner.pem").write_bytes(issuers["partner"])
    chain = b"".join(
        x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM)
        for der in (signer.certificate_der, *signer.chain)
    )
    (tmp_path / "chain.pem").write_bytes(chain)
    status, _, err = vmksim(
        *("image", "build", payload, "--name", "tool", "--version", "1.0-1", "--vendor", "Maker"),
        *("--level", "PartnerSupported", "--key", tmp_path / "key.pem", "--certs", tmp_path / "chain.pem"),
        *("--out", tmp_path / "a.vib"),
    )
    assert status == 0, err
    trust = ("--roots", tmp_path / "roots.pem", "--issuer", f"partner={tmp_path / 'partner.pem'}")
    status, out, err = vmksim("image", "verify", tmp_path / "a.vib", *trust)
    assert status == 0, err
    assert f"signed by: {signer.provider}" in out
    status, _, _ = vmksim("image", "verify", tmp_path / "a.vib", *trust[:2])
    assert status == 1


def test_a_revocation_list_is_read_from_its_file(vmksim, payload, tmp_path):
    from datetime import timedelta

    from sim.core.context import EPOCH
    from sim.core.rng import Rng
    from sim.image.certificate import load_certificate
    from sim.image.crl_issue import CrlSpec, issue_crl
    from sim.scenario.world import world_pki

    vib, crl = tmp_path / "tool.vib", tmp_path / "list.crl"
    made = ("--name", "tool", "--version", "1.0-1", "--vendor", "Example", "--level", "PartnerSupported")
    assert vmksim("image", "build", payload, *made, "--seed", 3, "--out", vib)[0] == 0
    pki = world_pki(Rng(3))
    serial = load_certificate(pki.signer("partner").certificate_der).serial
    spec = CrlSpec(
        this_update=EPOCH - timedelta(days=2), next_update=EPOCH - timedelta(days=1), serials=(serial,)
    )
    crl.write_bytes(issue_crl(spec, pki.authorities["partner"]))
    verify = ("image", "verify", vib, "--seed", 3)
    assert vmksim(*verify)[0] == 0
    for options, words in (
        (("--crl", crl), "expired at"),
        (("--crl", crl, "--stale-crl"), "is revoked by"),
        (("--need-crl",), "there is no revocation list of"),
    ):
        status, out, err = vmksim(*verify, *options)
        assert (status, words in out + err) == (1, True), out + err
    crl.write_bytes(b"junk")
    assert vmksim(*verify, "--crl", crl)[0] == 2


def test_a_bundle_and_its_profile_go_from_file_to_bank(vmksim, payload, tmp_path):
    bank, vib, bundle = tmp_path / "bank", tmp_path / "tool.vib", tmp_path / "depot.zip"
    assert vmksim("image", "bank", bank, "--modules", 2, "--seed", 3)[0] == 0
    made = ("--name", "tool", "--version", "1.0-1", "--vendor", "Example", "--level", "PartnerSupported")
    assert vmksim("image", "build", payload, *made, "--seed", 3, "--out", vib)[0] == 0
    assert (
        vmksim("image", "bundle", "make", vib, "--vendor", "Example", "--profile", "p", "--out", bundle)[0]
        == 0
    )
    status, out, _ = vmksim("image", "bundle", "inspect", bundle)
    assert (status, "Example_bootbank_tool_1.0-1" in out) == (0, True)
    old = ("--age-max", 30, "--time", "2026-06-01")
    status, _, err = vmksim("image", "bundle", "inspect", bundle, *old)
    assert (status, "days old" in err) == (1, True)
    apply = ("image", "profile", bundle, "p", bank, "--seed", 3, "--out", tmp_path / "new")
    status, _, err = vmksim(*apply)
    assert (status, "removal of VIBs" in err) == (1, True)
    assert not (tmp_path / "new").exists()
    status, out, err = vmksim(*apply, "--ok-to-remove")
    assert (status, "1 installed" in out) == (0, True), out + err
    assert (tmp_path / "new" / "payload1.v00").exists()
    made = ("--name", "tool", "--version", "2.0-1", "--vendor", "Other", "--level", "PartnerSupported")
    assert vmksim("image", "build", payload, *made, "--seed", 3, "--out", vib)[0] == 0
    assert (
        vmksim("image", "bundle", "make", vib, "--vendor", "Other", "--profile", "p", "--out", bundle)[0] == 0
    )
    again = ("image", "profile", bundle, "p", tmp_path / "new", "--seed", 3, "--out", tmp_path / "other")
    status, _, err = vmksim(*again)
    assert (status, "cannot take the place of Example_bootbank_tool_1.0-1" in err) == (1, True)
    status, out, err = vmksim(*again, "--allow-vendor-change")
    assert (status, "1 installed, 1 removed" in out) == (0, True), out + err
