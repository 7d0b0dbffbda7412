"""The state file: what goes in comes out, equal states are equal bytes, and damage is named."""

import hashlib
import json

import pytest

from sim.errors import FormatError, LimitError, SimBug
from sim.tpm.client import TpmClient
from sim.tpm.constants import TPM_ALG
from sim.tpm.device import Tpm
from sim.tpm.state import apply_first_writes, fork, load, restore, save, snapshot, state_diff, state_lines

SHA256 = TPM_ALG.SHA256.value


def with_body(data, change):
    """Return the file with a changed body and the right checksum."""
    header, _, body = data.partition(b"\n")
    body = json.dumps(change(json.loads(body))).encode()
    start = header.rsplit(b" ", 1)[0]
    return start + b" " + hashlib.sha256(body).hexdigest().encode() + b"\n" + body + b"\n"


def test_a_restored_tpm_is_in_the_same_state_and_goes_on_the_same_way(tpm, client):
    client.create_primary_ak()
    client.pcr_extend(7, {SHA256: b"x" * 32})
    again = restore(snapshot(tpm))
    assert snapshot(again) == snapshot(tpm)
    command = bytes.fromhex("80010000000c0000017b0020")
    assert [again.execute(command) for _ in range(5)] == [tpm.execute(command) for _ in range(5)]
    assert snapshot(again) == snapshot(tpm)


def test_the_order_in_which_things_came_does_not_show(tpm):
    other = fork(tpm)
    tpm.nv_counter_max = other.nv_counter_max = 5
    tpm.hierarchies = dict(reversed(tpm.hierarchies.items()))
    assert snapshot(tpm) == snapshot(other)


def test_a_fork_goes_its_own_way(tpm, client):
    other = fork(tpm)
    before = snapshot(other)
    client.pcr_extend(7, {SHA256: b"x" * 32})
    assert snapshot(other) == before != snapshot(tpm)


def test_a_difference_is_named_by_its_path(tpm, client):
    before = fork(tpm)
    client.pcr_extend(7, {SHA256: b"x" * 32})
    changed = state_diff(before, tpm)
    assert f"pcrs.values[{SHA256}][7]" in changed
    old, new = changed[f"pcrs.values[{SHA256}][7]"]
    assert (old, new) == ("00" * 32, tpm.pcrs.values[SHA256][7].hex())
    assert not any(path.startswith("hierarchies") for path in changed)
    assert state_diff(tpm, fork(tpm)) == {}


def test_what_appears_or_goes_shows_as_a_difference(tpm, client):
    before = fork(tpm)
    client.create_primary_ak()
    added = {path: pair for path, pair in state_diff(before, tpm).items() if path.startswith("objects")}
    assert added
    assert all(old is None for old, _ in added.values())
    removed = state_diff(tpm, before)
    assert all(removed[path][1] is None for path in added)


def test_every_value_has_a_line(tpm):
    lines = state_lines(tpm)
    assert lines["profile.manufacturer"] == '"IBM"'
    assert lines["shutdown_type"] == "null"
    assert lines["pcrs.values[11][0]"] == "00" * 32
    assert "hierarchies[0x4000000c].seed" in lines


def test_a_file_is_written_whole_and_read_again(tpm, tmp_path):
    path = tmp_path / "tpm.state"
    save(tpm, path)
    assert snapshot(load(path)) == snapshot(tpm) == path.read_bytes()
    save(tpm, path)
    assert [each.name for each in tmp_path.iterdir()] == ["tpm.state"]


def test_a_crash_while_writing_leaves_the_old_file(tpm, client, tmp_path, monkeypatch):
    path = tmp_path / "tpm.state"
    save(tpm, path)
    before = path.read_bytes()
    client.pcr_extend(7, {SHA256: b"x" * 32})

    def crash(number):
        raise OSError("power")

    monkeypatch.setattr("sim.tpm.state.os.fsync", crash)
    with pytest.raises(OSError, match="power"):
        save(tpm, path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("at", [0, 20, 60, 100, 2000, -2])
def test_one_flipped_bit_is_found(tpm, at):
    data = bytearray(snapshot(tpm))
    data[at] ^= 1
    with pytest.raises(FormatError, match="TPM state"):
        restore(bytes(data))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"", "first line"),
        (lambda data: b"something else\n", "first line"),
        (lambda data: data.replace(b"state 2", b"state 1", 1), "version"),
        (lambda data: data[:-1], "cut off"),
        (lambda data: data[:-50] + b"\n", "SHA-256"),
        (lambda data: with_body(data, lambda tree: 5), "not the state"),
        (lambda data: with_body(data, lambda tree: [1]), "not the state"),
        (lambda data: with_body(data, lambda tree: {"strange": 1}), "unknown kind"),
        (
            lambda data: with_body(data, lambda tree: {"class": "os:system", "fields": {}}),
            "no class of a TPM",
        ),
        (lambda data: with_body(data, lambda tree: {"class": "sim.tpm.state:os", "fields": {}}), "no class"),
        (
            lambda data: with_body(data, lambda tree: {"class": "sim.tpm.state:load", "fields": {}}),
            "no class",
        ),
        (lambda data: with_body(data, lambda tree: {**tree, "fields": {}}), "a state that a TPM can have"),
    ],
)
def test_what_is_no_state_is_refused_by_name(tpm, change, message):
    with pytest.raises(FormatError, match=message):
        restore(change(snapshot(tpm)))


def test_a_deep_nest_is_refused(tpm):
    def nest(tree):
        for _ in range(60):
            tree = [tree]
        return tree

    with pytest.raises(FormatError, match="nested"):
        restore(with_body(snapshot(tpm), nest))


def test_a_huge_file_is_refused(monkeypatch):
    monkeypatch.setattr("sim.tpm.state.STATE_BYTES_MAX", 10)
    with pytest.raises(LimitError):
        restore(bytes(11))


def test_a_foreign_object_in_the_state_is_our_bug(tpm):
    tpm.random = pytest
    with pytest.raises(SimBug):
        snapshot(tpm)


def test_a_tpm_in_a_machine_is_saved_with_its_time():
    from sim.core.engine import Engine

    tpm = Tpm(b"seed", clock=Engine())
    tpm.init()
    assert restore(snapshot(tpm)).clock.now == 0


def test_only_the_first_writes_are_applied(tpm, client):
    after = fork(tpm)
    after.nv_counter_max = 7
    after.clear_disabled = True
    after.hierarchies[0x40000001] = after.hierarchies[0x4000000B]
    total = apply_first_writes(fork(tpm), after, 0)
    assert total == 3
    partly = fork(tpm)
    apply_first_writes(partly, after, 2)
    whole = fork(tpm)
    apply_first_writes(whole, after, total)
    assert snapshot(whole) == snapshot(after) != snapshot(partly)
    assert len(state_diff(tpm, partly)) < len(state_diff(tpm, whole))


def test_what_is_lost_with_the_power_is_no_write(tpm):
    after = fork(tpm)
    TpmClient(after.execute).get_random(8)
    TpmClient(after.execute).create_primary_ak()
    assert state_diff(tpm, after)
    assert apply_first_writes(tpm, after, 9) == 0
    assert not tpm.objects
