import pytest

from sim.errors import FormatError, LimitError
from sim.image.paths import PATH_CHARS_MAX, check_link_target, check_path


@pytest.mark.parametrize(
    "path", ["a", "etc/vmware/esx.conf", "opt/..hidden/x", "a b/c", "x" * PATH_CHARS_MAX]
)
def test_plain_relative_paths_are_taken(path):
    check_path(path, "x", "here")


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "../etc/passwd",
        "a/../b",
        "a/..",
        "./a",
        "a//b",
        "a/",
        "a\\..\\b",
        "C:\\x",
        "a\nb",
        "a\0b",
        "é",
    ],
)
def test_paths_that_can_leave_the_root_or_be_misread_are_refused(path):
    with pytest.raises(FormatError) as caught:
        check_path(path, "tar archive", "entry 3")
    assert (caught.value.what, caught.value.where) == ("tar archive", "entry 3")


def test_a_path_is_no_longer_than_its_limit():
    with pytest.raises(LimitError):
        check_path("x" * (PATH_CHARS_MAX + 1), "x", "here")


@pytest.mark.parametrize(
    ("path", "target"), [("bin/sh", "busybox"), ("a/b/c", "../../d"), ("a", "/etc/x"), ("a/b", "/x/../y")]
)
def test_links_inside_the_root_are_taken(path, target):
    check_link_target(path, target, "x", "here")


@pytest.mark.parametrize(
    ("path", "target"),
    [("a", "../b"), ("a/b", "../../c"), ("a/b", "/../x"), ("a", ""), ("a", "x\\y"), ("a/b", "x/../../../y")],
)
def test_links_out_of_the_root_are_refused(path, target):
    with pytest.raises(FormatError):
        check_link_target(path, target, "x", "here")
