"""Claims about the saved configuration: sealed at the first boot, unsealed at the next, shut after every tampering."""

import json
import pickle

import pytest
from attrs import evolve

from sim.hw.spec import CpuSpec, FirmwareSpec, HostSpec
from sim.image.efi_lists import encode_signature_lists
from sim.image.payload import content_of, gzip_stored
from sim.image.vib import Payload, build_vib
from sim.kernel.api import ApiError
from sim.kernel.configuration import (
    ENCRYPTED_FILE,
    PLAIN_FILE,
    SEALED_FILE,
    Configuration,
    ConfigurationLockedError,
    ConfigurationVault,
)
from sim.kernel.host import HostState
from sim.kernel.recovery_key import format_recovery_key
from sim.kernel.sealing import _PARENT as PARENT
from sim.kernel.sealing import SealedSecret
from sim.kernel.tpm_driver import TpmDriver
from sim.scenario.build import build
from sim.scenario.spec import ImageSpec, Scenario, TpmSpec
from sim.tpm.client import TpmClient
from sim.tpm.client_sessions import SessionClient
from sim.tpm.constants import TPM_ALG, TPM_CC, TPM_RH
from sim.tpm.device import Tpm
from sim.tpm.faults import Fault, FaultyTpm
from sim.tpm.wire import TPMS_SENSITIVE_CREATE

EXEC = "execInstalledOnly"
RECOVERY = "encryptionRecoveryKey"


def machine(*, seed=3, name="esx01", tpm="present", **firmware):
    host = HostSpec(
        name=name,
        cpu=CpuSpec(cores_per_node=2),
        memory_bytes=2 << 30,
        firmware=FirmwareSpec(tpm_enabled=tpm != "disabled", **firmware),
    )
    image = ImageSpec(modules=2, module_size_bytes=1024)
    return build(Scenario(image=image, host=host, tpm=TpmSpec(state=tpm)), seed)


def run(machinery):
    machinery.sim.engine.run()
    if machinery.tpm is not None:
        assert machinery.tpm.objects == {}
        assert machinery.tpm.sessions.loaded == {}
        machinery.tpm.check_invariants()
    machinery.host.check_invariants()
    return machinery


def booted(**changes):
    machinery = machine(**changes)
    machinery.host.power_on()
    return run(machinery)


def again(machinery):
    machinery.host.reset()
    return run(machinery)


@pytest.fixture(scope="module")
def sealed():
    return pickle.dumps(booted())


@pytest.fixture
def running(sealed):
    """A host that has sealed its key, its own copy for each test."""
    return pickle.loads(sealed)


def store(machinery):
    return machinery.host.board.disk.volume("store")


def status(machinery):
    return machinery.host.call("host.encryption")


def outcomes(machinery):
    return [row["outcome"] for row in machinery.sim.trace.select("kernel.configuration")]


def assert_locked(machinery):
    host = machinery.host
    assert host.state is HostState.HALTED
    assert host.failure.component == "unlock_configuration"
    assert "locked" in host.failure.message
    assert outcomes(machinery)[-1] == "locked"
    assert machinery.sim.trace.select("kernel.panic")[-1]["step"] == "unlock_configuration"


def set_option(machinery, key, value):
    """Change boot.cfg as somebody at the boot loader does: the running kernel knows nothing of it."""
    bank = machinery.host.board.disk.volume("bootbank")
    lines = bank.peek("boot.cfg").decode().splitlines()
    changed = [f"{line} {key}={value}" if line.startswith("kernelopt=") else line for line in lines]
    assert changed != lines
    bank.write("boot.cfg", ("\n".join(changed) + "\n").encode())


# -- the ordinary life


def test_the_key_is_sealed_at_the_first_boot_and_unsealed_at_each_later_one(running):
    assert status(running) == {
        "mode": "TPM",
        "require_secure_boot": True,
        "require_exec_installed_only": False,
    }
    assert store(running).exists(SEALED_FILE)
    assert not store(running).exists(PLAIN_FILE)
    blob, text = store(running).peek(SEALED_FILE), store(running).peek(ENCRYPTED_FILE)
    key = running.host.call("host.recovery_key")
    for _ in range(2):
        assert again(running).host.state is HostState.RUNNING
    assert outcomes(running) == ["sealed", "unsealed", "unsealed"]
    assert store(running).peek(SEALED_FILE) == blob
    assert store(running).peek(ENCRYPTED_FILE) != text
    assert running.host.kernel.vault.configuration.boots == 3
    assert running.host.call("host.recovery_key") == key


def test_the_blob_names_the_secure_boot_pcr_and_nothing_opens_it_but_the_policy(running):
    blob = SealedSecret.from_bytes(store(running).peek(SEALED_FILE))
    assert blob.pcrs == (7,)
    assert blob.to_bytes() == store(running).peek(SEALED_FILE)
    client = SessionClient(running.host.board.tpm.transmit, running.sim.rng.stream("test"))
    nothing = TPMS_SENSITIVE_CREATE(userAuth=b"", data=b"")
    parent, *_ = client.call(TPM_CC.CreatePrimary, (TPM_RH.OWNER,), nothing, PARENT, b"", ())
    loaded, _ = client.call(TPM_CC.Load, (parent,), blob.private, blob.public)
    with pytest.raises(Exception, match="AUTH_UNAVAILABLE"):
        client.call(TPM_CC.Unseal, (loaded,))


def test_neither_disk_nor_bus_nor_log_shows_the_key(monkeypatch):
    machinery = machine()
    seen = []
    execute = Tpm.execute

    def listen(self, command, locality=0):
        response = execute(self, command, locality)
        seen.append(command + response)
        return response

    monkeypatch.setattr(Tpm, "execute", listen)
    machinery.host.power_on()
    again(run(machinery))
    key = machinery.host.kernel.vault._key
    digits = machinery.host.call("host.recovery_key")
    assert len(key) == 32
    stored = b"".join(store(machinery).peek(path) for path in store(machinery).paths())
    assert key not in stored + b"".join(seen)
    assert not any(digits in row["text"] for row in machinery.sim.trace.select("log.line"))


@pytest.mark.parametrize("tpm", ["absent", "disabled"])
def test_without_a_usable_tpm_the_configuration_is_plain(tpm):
    machinery = booted(tpm=tpm)
    assert status(machinery)["mode"] == "NONE"
    assert json.loads(store(machinery).peek(PLAIN_FILE))["boots"] == 1
    assert again(machinery).host.kernel.vault.configuration.boots == 2
    assert not store(machinery).exists(SEALED_FILE)
    for call, params in (("host.recovery_key", {}), ("host.require", {"secure_boot": True})):
        with pytest.raises(ApiError, match="not encrypted"):
            machinery.host.call(call, params)


def test_a_plain_configuration_is_encrypted_once_there_is_a_usable_tpm():
    machinery = booted(tpm="disabled")
    machinery.host.board.firmware.tpm_enabled = True
    machinery.host.power_off()
    machinery.host.power_on()
    run(machinery)
    assert status(machinery)["mode"] == "TPM"
    assert machinery.host.kernel.vault.configuration.boots == 2
    assert not store(machinery).exists(PLAIN_FILE)


@pytest.mark.parametrize("junk", [b"", b"{}", b"[" * 10_000, b"\xff", b'{"host": 1}', b"9" * 5000])
def test_a_damaged_plain_configuration_is_begun_anew(junk):
    machinery = booted(tpm="absent")
    store(machinery).write(PLAIN_FILE, junk)
    assert again(machinery).host.state is HostState.RUNNING
    assert machinery.host.kernel.vault.configuration == Configuration(host="esx01")


def test_a_host_that_began_without_secure_boot_is_bound_to_its_tpm_alone():
    machinery = booted(secure_boot=False)
    assert not status(machinery)["require_secure_boot"]
    assert SealedSecret.from_bytes(store(machinery).peek(SEALED_FILE)).pcrs == ()
    machinery.host.board.firmware.secure_boot = True
    assert again(machinery).host.state is HostState.RUNNING
    machinery.host.call("host.require", {"secure_boot": True})
    assert again(machinery).host.state is HostState.RUNNING
    machinery.host.board.firmware.secure_boot = False
    assert_locked(again(machinery))


def test_what_does_not_hold_now_cannot_be_required_and_nothing_changes(running):
    before = {path: store(running).peek(path) for path in store(running).paths()}
    with pytest.raises(ApiError, match="execInstalledOnly is off"):
        running.host.call("host.require", {"exec_installed_only": True})
    assert {path: store(running).peek(path) for path in store(running).paths()} == before
    running.host.call("host.require", {"secure_boot": False})
    running.host.board.firmware.secure_boot = False
    assert again(running).host.state is HostState.RUNNING
    with pytest.raises(ApiError, match="Secure Boot is off"):
        running.host.call("host.require", {"secure_boot": True})


# -- tampering


def secure_boot_off(machinery):
    machinery.host.board.firmware.secure_boot = False


def another_dbx(machinery):
    machinery.host.board.firmware.set_variable("dbx", encode_signature_lists([b"\x5a" * 32]))


def another_db(machinery):
    firmware, pki = machinery.host.board.firmware, machinery.pki
    firmware.set_variable("db", encode_signature_lists([*pki.uefi_db, pki.platform.certificate_der]))


def clear_tpm(machinery):
    client = SessionClient(machinery.host.board.tpm.transmit, machinery.sim.rng.stream("test"))
    client.call(TPM_CC.Clear, (TPM_RH.LOCKOUT,))


def swap_tpm(machinery):
    other = machinery.tpm_vendor.make("other", machinery.sim.rng.child("other"), clock=machinery.sim.engine)
    other.init()
    machinery.host.board.tpm.device = machinery.tpm = other


def disable_tpm(machinery):
    machinery.host.board.firmware.tpm_enabled = False


def blob_of_another_host(machinery):
    other = booted(seed=4, name="esx02")
    for path in (SEALED_FILE, ENCRYPTED_FILE):
        store(machinery).write(path, store(other).peek(path))


def lose_key(machinery):
    store(machinery).remove(SEALED_FILE)


def lose_configuration(machinery):
    store(machinery).remove(ENCRYPTED_FILE)


TAMPERINGS = (
    secure_boot_off,
    another_dbx,
    another_db,
    clear_tpm,
    swap_tpm,
    disable_tpm,
    blob_of_another_host,
    lose_key,
    lose_configuration,
)


@pytest.mark.parametrize("tamper", TAMPERINGS)
def test_after_tampering_the_host_stops_and_stores_nothing(running, tamper):
    tamper(running)
    before = {path: store(running).peek(path) for path in store(running).paths()}
    assert_locked(again(running))
    assert {path: store(running).peek(path) for path in store(running).paths()} == before


@pytest.mark.parametrize("tamper", [secure_boot_off, another_dbx, disable_tpm])
def test_what_is_undone_lets_the_host_run_again(running, tamper):
    firmware = running.host.board.firmware
    before = pickle.dumps(firmware)
    tamper(running)
    again(running)
    running.host.board.firmware = pickle.loads(before)
    again(running)
    assert running.host.state is HostState.RUNNING
    assert status(running)["mode"] == "TPM"


def test_one_more_extend_of_pcr_7_shuts_the_configuration(running, monkeypatch):
    load = TpmDriver.load

    def extend_first(driver):
        load(driver)
        driver.client().pcr_extend(7, {TPM_ALG.SHA256: bytes(32)})

    with monkeypatch.context() as patch:
        patch.setattr(TpmDriver, "load", extend_first)
        assert_locked(again(running))
    assert again(running).host.state is HostState.RUNNING


@pytest.mark.parametrize("pcr", [0, 1, 4, 11, 12, 13, 14, 16, 23])
def test_other_pcrs_are_not_in_the_policy(running, monkeypatch, pcr):
    load = TpmDriver.load

    def extend_first(driver):
        load(driver)
        driver.client().pcr_extend(pcr, {TPM_ALG.SHA256: bytes(32)})

    monkeypatch.setattr(TpmDriver, "load", extend_first)
    assert again(running).host.state is HostState.RUNNING


def driver_vib(machinery, provider):
    """A signed VIB with a new version of a driver's files, of another maker if one likes."""
    bank = machinery.host.board.disk.volume("bootbank")
    old = next(each for each in machinery.image.bank.database.records if each.descriptor.name == "vmkusb")
    spec = evolve(old.descriptor, version="9.0-1", payloads=())
    payload = Payload(name="vmkusb", kind="vgz", data=gzip_stored(content_of(bank.peek(old.files[0]))))
    level = spec.level.xml_name
    return build_vib(spec, [payload], machinery.pki.signer(level, provider), machinery.sim.utc_now())


def pcr_13(machinery):
    client = TpmClient(machinery.host.board.tpm.transmit)
    return client.pcr_read({TPM_ALG.SHA256: (13,)})[TPM_ALG.SHA256][13]


@pytest.mark.parametrize("provider", ["VMware", "SomebodyElse"])
@pytest.mark.parametrize("exec_only", [False, True])
def test_an_updated_driver_does_not_shut_the_configuration(running, provider, exec_only):
    if exec_only:
        running.host.call("host.set_option", {"key": EXEC, "value": "TRUE"})
        again(running)
        running.host.call("host.require", {"exec_installed_only": True})
    before = pcr_13(running)
    call = {"archive": driver_vib(running, provider), "allow_vendor_change": provider != "VMware"}
    answer = running.host.call("image.install", call)
    assert answer["installed"]
    again(running)
    assert running.host.state is HostState.RUNNING
    assert pcr_13(running) != before
    assert pcrs_of(running) == ((7, 14) if exec_only else (7,))
    assert again(running).host.state is HostState.RUNNING


def vault_of(machinery, label="test"):
    """A vault of its own for the running boot, as often as one likes."""
    kernel = machinery.host.kernel
    forget = machinery.host.kernel.vault._forget_option
    return ConfigurationVault(
        machinery.host.board, kernel.boot, kernel.tpm, machinery.sim.rng.child(label), forget
    )


@pytest.mark.parametrize("path", [SEALED_FILE, ENCRYPTED_FILE])
def test_every_sampled_bit_flip_shuts_the_configuration(running, path):
    bits = 8 * len(store(running).peek(path))
    vault_of(running).unlock()
    for bit in [*range(0, 128, 5), *range(128, bits, 31), bits - 1]:
        store(running).flip_bit(path, bit)
        with pytest.raises(ConfigurationLockedError):
            vault_of(running).unlock()
        store(running).flip_bit(path, bit)
        assert running.tpm.objects == {}
        assert running.tpm.sessions.loaded == {}
    vault_of(running).unlock()


@pytest.mark.parametrize("path", [SEALED_FILE, ENCRYPTED_FILE])
def test_every_stump_and_every_surplus_shuts_the_configuration(running, path):
    whole = store(running).peek(path)
    for data in [*(whole[:size] for size in range(0, len(whole), 9)), whole + b"\0", whole * 2]:
        store(running).write(path, data)
        with pytest.raises(ConfigurationLockedError):
            vault_of(running).unlock()


# -- a TPM that fails


def commands(machinery, action):
    """How many commands an action sends."""
    before = len(machinery.sim.trace.select("tpm.command"))
    action()
    return len(machinery.sim.trace.select("tpm.command")) - before


@pytest.mark.parametrize("kind", ["fail", "retry", "drop", "lose_answer"])
def test_a_tpm_that_fails_at_any_command_of_the_unlocking_leaves_all_as_it_was(running, kind):
    count = commands(running, vault_of(running).unlock)
    before = {path: store(running).peek(path) for path in store(running).paths()}
    saved = pickle.dumps(running)
    assert count >= 8
    for number in range(1, count + 1):
        machinery = pickle.loads(saved)
        slot = machinery.host.board.tpm
        slot.device = FaultyTpm(machinery.tpm, (Fault(kind=kind, first=number),))
        with pytest.raises(ConfigurationLockedError):
            vault_of(machinery).unlock()
        assert {path: store(machinery).peek(path) for path in store(machinery).paths()} == before
        left = len(machinery.tpm.objects) + len(machinery.tpm.sessions.loaded)
        assert left <= 1, "only what the failing command itself was to flush, or to name"
        slot.device = machinery.tpm
        assert again(machinery).host.state is HostState.RUNNING


@pytest.mark.parametrize("kind", ["fail", "drop"])
def test_a_tpm_that_fails_at_any_command_of_the_sealing_leaves_a_plain_configuration(running, kind):
    for path in (SEALED_FILE, ENCRYPTED_FILE):
        store(running).remove(path)
    saved = pickle.dumps(running)
    count = commands(running, vault_of(running).unlock)
    for number in range(1, count + 1):
        machinery = pickle.loads(saved)
        machinery.host.board.tpm.device = FaultyTpm(machinery.tpm, (Fault(kind=kind, first=number),))
        vault = vault_of(machinery)
        vault.unlock()
        assert vault.mode == "NONE"
        assert PLAIN_FILE in store(machinery).paths()
        assert SEALED_FILE not in store(machinery).paths()
        assert ENCRYPTED_FILE not in store(machinery).paths()


def test_a_tpm_with_one_slot_cannot_unseal_so_nothing_is_sealed_to_it():
    machinery = machine()
    machinery.tpm.profile = evolve(machinery.tpm.profile, transient_slots=1)
    machinery.host.power_on()
    run(machinery)
    assert status(machinery)["mode"] == "NONE"


# -- the recovery key


@pytest.mark.parametrize("tamper", TAMPERINGS[:6])
def test_the_recovery_key_opens_the_configuration_and_seals_a_new_key_to_the_present_state(running, tamper):
    digits = running.host.call("host.recovery_key")
    assert len(digits.split("-")) == 16
    assert all(len(group) == 6 and group.isdigit() for group in digits.split("-"))
    tamper(running)
    assert_locked(again(running))
    set_option(running, RECOVERY, digits)
    again(running)
    assert running.host.state is HostState.RUNNING
    assert running.host.kernel.vault.configuration.boots == 2
    assert not any(digits in row["text"] for row in running.sim.trace.select("log.line"))
    assert running.host.call("host.options")["current"][RECOVERY] == "(hidden)"
    assert RECOVERY not in running.host.call("host.options")["next_boot"]
    usable = tamper is not disable_tpm
    assert status(running)["mode"] == ("TPM" if usable else "NONE")
    assert status(running)["require_secure_boot"] is (usable and tamper is not secure_boot_off)
    if usable:
        assert running.host.call("host.recovery_key") != digits
    assert again(running).host.state is HostState.RUNNING
    assert running.host.kernel.vault.configuration.boots == 3
    assert status(running)["mode"] == ("TPM" if usable else "NONE")


def test_a_used_recovery_key_opens_nothing_any_more(running):
    digits = running.host.call("host.recovery_key")
    clear_tpm(running)
    set_option(running, RECOVERY, digits)
    assert again(running).host.state is HostState.RUNNING
    clear_tpm(running)
    set_option(running, RECOVERY, digits)
    assert_locked(again(running))


@pytest.mark.parametrize(
    "digits", [format_recovery_key(bytes(32)), "000000", "1", "-".join(["000001"] * 16), "x" * 111]
)
def test_a_wrong_recovery_key_leaves_the_host_halted_and_is_not_shown(running, digits):
    clear_tpm(running)
    set_option(running, RECOVERY, digits)
    assert_locked(again(running))
    if len(digits) > 6:
        assert digits not in running.host.failure.message


def test_a_recovery_key_that_is_not_needed_is_taken_out_of_the_boot_bank(running):
    set_option(running, RECOVERY, running.host.call("host.recovery_key"))
    again(running)
    assert outcomes(running)[-1] == "unsealed"
    assert RECOVERY not in running.host.call("host.options")["next_boot"]


def test_a_configuration_that_is_damaged_itself_has_no_recovery(running):
    digits = running.host.call("host.recovery_key")
    store(running).flip_bit(ENCRYPTED_FILE, 400)
    set_option(running, RECOVERY, digits)
    assert_locked(again(running))


# -- execInstalledOnly


@pytest.fixture(scope="module")
def enforced_bytes():
    machinery = machine(txt_enabled=True)
    set_option(machinery, EXEC, "TRUE")
    machinery.host.power_on()
    return pickle.dumps(run(machinery))


@pytest.fixture
def enforced(enforced_bytes):
    """A host that requires execInstalledOnly."""
    return pickle.loads(enforced_bytes)


def pcrs_of(machinery):
    return SealedSecret.from_bytes(store(machinery).peek(SEALED_FILE)).pcrs


def test_an_option_that_is_on_at_the_first_boot_is_required_from_then_on(enforced):
    assert status(enforced)["require_exec_installed_only"]
    assert pcrs_of(enforced) == (7, 14)
    assert again(enforced).host.state is HostState.RUNNING
    set_option(enforced, EXEC, "FALSE")
    assert_locked(again(enforced))


def test_an_option_that_is_turned_on_later_is_required_when_asked_for(running):
    running.host.call("host.set_option", {"key": EXEC, "value": "TRUE"})
    again(running)
    assert pcrs_of(running) == (7,)
    running.host.call("host.require", {"exec_installed_only": True})
    assert pcrs_of(running) == (7, 14)
    assert again(running).host.state is HostState.RUNNING
    running.host.call("host.require", {"exec_installed_only": False})
    set_option(running, EXEC, "FALSE")
    assert again(running).host.state is HostState.RUNNING


def test_an_option_that_the_kernel_sets_itself_does_not_lock_the_next_boot(enforced):
    enforced.host.call("host.set_option", {"key": "other", "value": "1"})
    assert pcrs_of(enforced) == (7,)
    again(enforced)
    assert enforced.host.state is HostState.RUNNING
    assert pcrs_of(enforced) == (7, 14)
    assert again(enforced).host.state is HostState.RUNNING


def test_the_kernel_itself_cannot_be_used_to_turn_a_required_option_off(enforced):
    enforced.host.call("host.set_option", {"key": EXEC, "value": "FALSE"})
    assert_locked(again(enforced))
    assert "requires execInstalledOnly" in enforced.host.failure.message


def test_the_late_launch_s_own_pcr_holds_the_command_line(enforced):
    enforced.host.call("host.set_option", {"key": "enableTboot", "value": "TRUE"})
    again(enforced)
    assert enforced.host.call("host.info")["drtm"]
    assert pcrs_of(enforced) == (7, 21)
    assert again(enforced).host.state is HostState.RUNNING
    set_option(enforced, "more", "1")
    assert_locked(again(enforced))


def test_after_a_recovery_the_option_is_in_the_policy_again_from_the_next_boot_on(enforced):
    digits = enforced.host.call("host.recovery_key")
    set_option(enforced, "more", "1")
    assert_locked(again(enforced))
    set_option(enforced, RECOVERY, digits)
    again(enforced)
    assert pcrs_of(enforced) == (7,)
    assert status(enforced)["require_exec_installed_only"]
    again(enforced)
    assert pcrs_of(enforced) == (7, 14)
    assert again(enforced).host.state is HostState.RUNNING


# -- what must hold of all of it


def test_the_unlocking_takes_the_time_of_its_tpm_commands(running):
    meter = running.host.board.meter
    before, rows = meter.totals_ns["tpm"], len(running.sim.trace.select("tpm.command"))
    vault_of(running).unlock()
    taken = running.sim.trace.select("tpm.command")[rows:]
    assert meter.totals_ns["tpm"] - before == sum(row["latency_ns"] for row in taken)
    assert meter.totals_ns["tpm"] - before > 150_000_000
    assert {row["locality"] for row in taken} == {0}


def test_same_seed_same_key_and_blobs_another_seed_others(sealed):
    one, two, other = pickle.loads(sealed), booted(), booted(seed=5)
    assert one.sim.trace.digest() == two.sim.trace.digest()
    for path in (SEALED_FILE, ENCRYPTED_FILE):
        assert store(one).peek(path) == store(two).peek(path) != store(other).peek(path)
    assert one.host.call("host.recovery_key") == two.host.call("host.recovery_key")
    assert one.host.call("host.recovery_key") != other.host.call("host.recovery_key")


def test_many_resets_without_an_orderly_shutdown_of_the_tpm_do_not_lock_the_host_out(running):
    for _ in range(6):
        assert again(running).host.state is HostState.RUNNING


def test_no_nonce_is_used_twice(running):
    nonces = []
    for _ in range(4):
        nonces.append(store(running).peek(ENCRYPTED_FILE)[len(b"configuration 1\n") :][:12])
        again(running)
    assert len(set(nonces)) == 4


def test_a_host_pickled_between_any_two_steps_of_its_start_goes_on_alike(running):
    running.host.reset()
    copies = []
    while running.host.state is HostState.BOOTING:
        copies.append(pickle.dumps(running))
        running.sim.engine.run(running.sim.now + 500_000_000)
    run(running)
    for copy in copies:
        assert run(pickle.loads(copy)).sim.trace.digest() == running.sim.trace.digest()


def test_attestation_and_sealing_share_the_tpm(running):
    for _ in range(3):
        running.host.call("tpm.quote", {"nonce": b"n"})
        running.host.call("host.require", {"secure_boot": True})
    assert TpmClient(running.host.board.tpm.transmit).get_random(4)
    assert running.tpm.objects == {}
    assert again(running).host.state is HostState.RUNNING
