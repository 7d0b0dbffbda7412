import os

import pytest

from sim.errors import ScenarioError
from sim.scenario.inputs import read_input, read_text


def test_a_regular_file_is_read_whole(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert read_input(tmp_path / "a", "key") == b"abc"


@pytest.mark.parametrize("name", ["missing", "folder", "pipe", "a\0b"])
def test_what_is_not_a_regular_file_is_refused_at_the_key_that_named_it(tmp_path, name):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ScenarioError) as caught:
        read_input(tmp_path / name, "image.vibs[0]")
    assert caught.value.path == "image.vibs[0]"


def test_a_file_over_the_limit_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "big").open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(ScenarioError, match="larger than the limit of 64 MiB"):
        read_input(tmp_path / "big", "key")


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"a\0b", bytes(range(256))])
def test_binary_junk_is_no_text(tmp_path, data):
    (tmp_path / "junk").write_bytes(data)
    with pytest.raises(ScenarioError, match="not"):
        read_text(tmp_path / "junk", "key", 1000)
