"""What a VIB may bring into the tree of an image, and what no tree may be."""

import attrs
import pytest

from sim.image.acceptance import AcceptanceLevel
from sim.image.install import InstallError, install
from sim.image.metadata import Descriptor
from sim.image.payload import gzip_stored
from sim.image.tar import EntryKind, TarEntry, with_parents, write_ustar
from sim.image.tree import LINKS_FOLLOWED_MAX, part_of, tree_problems
from sim.image.vib import Payload, build_vib, read_vib
from sim.image.vtar import write_vtar

COMMUNITY, PARTNER, ACCEPTED, CERTIFIED = AcceptanceLevel
LINK, FOLDER = EntryKind.SYMLINK, EntryKind.DIRECTORY


def file(path, **fields):
    return TarEntry(path=path, data=path.encode(), **fields)


def link(path, target):
    return TarEntry(path=path, kind=LINK, target=target)


def folder(path, **fields):
    return TarEntry(path=path, kind=FOLDER, **{"mode": 0o755, **fields})


@pytest.fixture(scope="module")
def bring(world_pki, epoch):
    """A function that makes a VIB of payloads, each given by its entries; it lists what it holds."""

    def build(*payloads, name="tool", level=PARTNER, kind="vgz", **fields):
        write = write_ustar if kind in ("tgz", "bootloader") else write_vtar
        trees = [with_parents(entries) for entries in payloads]
        held = [entry.path for tree in trees for entry in tree if entry.kind is not FOLDER]
        fields.setdefault("files", tuple(dict.fromkeys(held)))
        files = [
            Payload(name=f"p{at}", kind=kind, data=gzip_stored(write(tree))) for at, tree in enumerate(trees)
        ]
        spec = Descriptor(name=name, version="1.0-1", vendor="Example", level=level, **fields)
        signer = world_pki.signer(level.xml_name) if level is not COMMUNITY else None
        return read_vib(build_vib(spec, files, signer, epoch))

    return build


@pytest.fixture(scope="module")
def put(small_image, world_pki, epoch):
    def run(*vibs, on=None, level=COMMUNITY, **options):
        return install(on or small_image.bank, list(vibs), level, world_pki.trust, epoch, **options)

    return run


def refused(check, words, call, *arguments, **options):
    with pytest.raises(InstallError) as caught:
        call(*arguments, **options)
    assert caught.value.check == check, str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize("kind", ["vgz", "boot", "upgrade", "bootisobios", "bootisoefi", "tgz", "bootloader"])
def test_a_payload_of_any_kind_keeps_to_the_places_of_its_level(bring, put, kind):
    for level in (COMMUNITY, PARTNER):
        vib = bring([file("bin/sh")], kind=kind, level=level)
        refused("VibValidationError", "may not write /bin/sh", put, vib)
        hidden = bring([file("bin/sh")], kind=kind, level=level, files=())
        refused("VibValidationError", "may not write /bin/sh", put, hidden)


@pytest.mark.parametrize("kind", ["boot", "upgrade", "bootisoefi"])
def test_a_payload_of_any_kind_lists_what_it_holds(bring, put, kind):
    refused("VibFormatError", "holds opt/x", put, bring([file("opt/x")], kind=kind, files=()))


def test_a_list_that_names_a_file_which_is_not_held_is_refused(bring, put):
    refused("VibFormatError", "lists opt/ghost", put, bring([file("opt/x")], files=("opt/ghost", "opt/x")))


@pytest.mark.parametrize(("kind", "content"), [("vgz", b"junk" * 300), ("tgz", b"junk" * 300)])
def test_a_payload_that_is_no_archive_of_its_kind_is_refused_even_by_force(
    world_pki, epoch, put, kind, content
):
    spec = Descriptor(name="tool", version="1.0-1", vendor="Example", level=PARTNER)
    payload = Payload(name="p0", kind=kind, data=gzip_stored(content))
    vib = read_vib(build_vib(spec, [payload], world_pki.signer("partner"), epoch))
    for force in (False, True):
        refused("VibFormatError", "payload p0 cannot be read", put, vib, force=force)


def test_an_overlay_of_a_lower_level_lies_over_nothing_of_a_higher_one(bring, put, small_image):
    owner = next(one for one in small_image.vibs if one.descriptor.level > PARTNER and one.descriptor.files)
    path = next(path for path in owner.descriptor.files if path.startswith("usr/lib/vmware/"))
    for level in (COMMUNITY, PARTNER):
        refused(
            "ProfileValidationError",
            f"File path {path} is claimed",
            put,
            bring([file(path)], level=level, overlay=True),
        )
    assert put(bring([file(path)], level=CERTIFIED, overlay=True)).installed


def test_a_file_that_its_owner_holds_and_does_not_list_has_an_owner_all_the_same(bring, put, small_image):
    assert "bin/hostd" not in small_image.vibs[0].descriptor.files
    vib = bring([file("bin/hostd")], level=ACCEPTED, overlay=True)
    refused("ProfileValidationError", "File path bin/hostd is claimed by the VIBs VMware", put, vib)


TRICKS = {
    "a link through another one": (
        [[link("opt/one", ".."), link("opt/two", "one/..")]],
        "link /opt/two .* leaves the root",
    ),
    "an absolute link through another one": (
        [[link("opt/one", "/"), link("opt/two", "/opt/one/../x")]],
        "link /opt/two .* leaves the root",
    ),
    "links in a circle": ([[link("opt/one", "two"), link("opt/two", "one")]], "goes through more than 40"),
    "a link to itself": ([[link("opt/one", "one")]], "goes through more than 40"),
    "a link, a file under it in the next payload": (
        [[link("opt/x", "/etc")], [file("opt/x/passwd")]],
        "/opt/x is a link of .* and a directory",
    ),
    "a path twice": ([[file("opt/x")], [file("opt/x")]], "/opt/x stands twice"),
    "a file and a directory": (
        [[file("opt/x")], [folder("opt/x")]],
        "/opt/x is a file of .* and a directory",
    ),
}


@pytest.mark.parametrize("payloads", TRICKS.values(), ids=TRICKS)
def test_the_payloads_of_a_vib_are_one_tree(bring, put, payloads):
    payloads, words = payloads
    for force in (False, True):
        with pytest.raises(InstallError, match=words):
            put(bring(*payloads), force=force)


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ([link("opt/x", "/etc")], [file("opt/x/passwd")], "/opt/x is a link of VIB Example_bootbank_one"),
        (
            [file("opt/x/passwd")],
            [link("opt/x", "/etc")],
            "/opt/x is a directory of VIB Example_bootbank_one",
        ),
        ([file("opt/a")], [file("opt/a/b")], "/opt/a is a file of VIB Example_bootbank_one"),
        ([link("opt/up", "..")], [link("opt/out", "up/..")], "link /opt/out of VIB Example_bootbank_two"),
    ],
)
def test_the_vibs_of_an_image_are_one_tree(bring, put, first, second, words):
    one, two = bring(first, name="one"), bring(second, name="two")
    bank = put(one).bank
    assert put(two).installed
    for force in (False, True):
        refused("ProfileValidationError", words, put, two, on=bank, force=force)
        refused("ProfileValidationError", words, put, one, two, force=force)


def test_a_file_whose_parents_no_payload_names_lies_under_nothing_but_directories(epoch):
    spec = Descriptor(name="tool", version="1.0-1", vendor="Example", level=PARTNER)
    parts = [part_of(spec, [[file("opt/a")], [file("opt/a/b/c")]])]
    assert list(tree_problems(parts)) == [
        "/opt/a/b/c of VIB Example_bootbank_tool_1.0-1 lies under /opt/a, a file of VIB Example_bootbank_tool_1.0-1"
    ]


def test_an_overlay_replaces_a_thing_by_the_same_kind_of_thing(bring, put):
    bank = put(bring([file("opt/x")], name="one")).bank
    assert put(bring([file("opt/x")], name="two", overlay=True), on=bank).installed
    vib = bring([link("opt/x", "/etc")], name="two", overlay=True)
    refused("ProfileValidationError", "/opt/x is a file of", put, vib, on=bank)


def test_honest_links_are_followed_to_their_end(bring, put):
    chain = [link(f"opt/l{at}", f"l{at + 1}") for at in range(LINKS_FOLLOWED_MAX - 1)]
    entries = [
        file("opt/a/b"),
        link("opt/c", "a/b"),
        link("opt/d", "../opt/c"),
        link("opt/e", "/etc/x/.."),
        *chain,
    ]
    assert put(bring(entries)).installed
    longer = [*entries, link(f"opt/l{LINKS_FOLLOWED_MAX - 1}", "a"), link("opt/m", "l0")]
    refused("ProfileValidationError", "/opt/m", put, bring(longer))


@pytest.mark.parametrize("level", [COMMUNITY, PARTNER])
@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (folder("etc", mode=0o777), "/etc as a directory that holds none of its files"),
        (folder("bin"), "/bin as a directory that holds none of its files"),
        (folder("opt", mode=0o777), "/opt as a directory with mode 0777"),
        (folder("opt", mode=0o700), "/opt as a directory with mode 0700"),
        (folder("opt", uid=1000), "of another owner than root"),
        (folder("opt", gid=1000), "of another owner than root"),
        (file("opt/f", mode=0o4755), "/opt/f with mode 4755"),
        (file("opt/f", mode=0o2755), "/opt/f with mode 2755"),
        (folder("opt/d", mode=0o2755), "/opt/d with mode 2755"),
    ],
)
def test_a_low_level_brings_plain_parents_and_no_set_id_files(bring, put, level, entry, words):
    refused("VibValidationError", words, put, bring([file("opt/x"), entry], level=level))
    higher = bring([file("opt/x"), entry], level=ACCEPTED)
    assert put(higher).installed


def test_a_low_level_does_as_it_likes_in_its_own_places(bring, put):
    entries = [
        folder("opt/d", mode=0o1777, uid=12),
        file("opt/d/f", mode=0o666),
        file("etc/vmware/service/s.xml"),
    ]
    assert put(bring(entries, level=COMMUNITY)).installed


def test_a_bank_whose_files_cannot_be_read_takes_no_installation(bring, put):
    bank = put(bring([file("opt/x")], name="one")).bank
    name = bank.database.records[-1].files[0]
    damaged = attrs.evolve(bank, files={**bank.files, name: b"damaged"})
    refused("ProfileValidationError", "payload p0 cannot be read", put, bring([file("opt/y")]), on=damaged)
