"""The command `sweep`, as a person types it."""

import json

SMALL = """
duration = "1s"
[host]
memory = "512MiB"
cpu = { cores_per_node = 2 }
[image]
modules = 2
module_size = "1KiB"
"""


def test_a_sweep_shows_every_seed_and_writes_them(vmksim, tmp_path):
    path = tmp_path / "s.toml"
    path.write_text(SMALL)
    status, out, _ = vmksim("sweep", path, "--seeds", "1-2", "--workers", "2", "--out", tmp_path / "o.csv")
    assert status == 0
    assert "2 of 2 runs ended as expected" in out
    lines = (tmp_path / "o.csv").read_text().splitlines()
    assert lines[0] == "point,seed,state,boot,attestation,met,digest,why"
    assert [line.split(",")[:3] for line in lines[1:]] == [["seed 1", "1", "done"], ["seed 2", "2", "done"]]
    status, out, _ = vmksim("sweep", path, "--seeds", "2", "--json", "--memory", "2GiB")
    assert status == 0
    assert json.loads(out)[0]["digest"] == lines[2].split(",")[6]


def test_a_sweep_that_does_not_end_as_expected_has_status_1(vmksim, tmp_path):
    path = tmp_path / "s.toml"
    path.write_text(SMALL + "[expect]\nboot = 'refused'\n")
    status, out, _ = vmksim("sweep", path, "--seeds", "1")
    assert status == 1
    assert "boot: expected refused" in out


def test_what_is_wrong_with_a_sweep_is_one_line(vmksim, tmp_path):
    path = tmp_path / "s.toml"
    path.write_text(SMALL)
    for options, word in (
        (("--seeds", "x"), "--seeds"),
        (("--workers", "0"), "--workers"),
        (("--memory", "x"), "--memory"),
    ):
        status, _, err = vmksim("sweep", path, *options)
        assert status == 2
        assert err.startswith(f"vmksim: {word}: ")
        assert len(err.splitlines()) == 1
