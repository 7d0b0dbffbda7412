import gzip
import hashlib
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.errors import FormatError, LimitError
from sim.image import manifest as manifest_module
from sim.image.manifest import ReferenceManifest, measured_digests
from sim.image.payload import content_of, gzip_stored
from sim.image.pe import authenticode_digest
from sim.image.platform import ReferenceCode, ReferencePlatform


@pytest.fixture(scope="session")
def manifest(small_image):
    return small_image.manifest


def test_every_module_of_the_bank_is_listed_and_boot_cfg_is_not(manifest, small_image):
    names = {component.name for component in manifest.components}
    assert names == set(small_image.bank.config.load_order)


def test_a_component_has_the_digests_of_its_content_and_its_vib(manifest, small_image):
    (driver,) = manifest.named("lsi_mr3.v00")
    content = content_of(small_image.bank.files["lsi_mr3.v00"])
    assert driver.digests == tuple(
        hashlib.new(name, content).digest() for name in ("sha256", "sha384", "sha512")
    )
    assert (driver.vib_name, driver.vib_vendor, driver.level) == ("lsi-mr3", "BCM", "VMwareAccepted")
    assert manifest.with_digest(driver.digests[1]) == (driver,)


def test_components_of_no_vib_have_empty_fields(manifest):
    for name in ("imgdb.tgz", "state.tgz", "useropts.gz"):
        (component,) = manifest.named(name)
        assert (component.vib_name, component.vib_version, component.vib_vendor, component.level) == ("",) * 4


def test_an_unknown_digest_or_name_finds_nothing(manifest):
    assert manifest.with_digest(bytes(32)) == ()
    assert manifest.named("absent.v00") == ()


def test_an_empty_module_counts_as_a_zero_byte_and_an_empty_option_file_as_nothing():
    assert measured_digests("a.v00", b"")[0] == hashlib.sha256(b"\0").digest()
    assert measured_digests("a.v00", gzip_stored(b""))[0] == hashlib.sha256(b"\0").digest()
    assert measured_digests("features.gz", gzip_stored(b""))[0] == hashlib.sha256(b"").digest()


def test_loaders_and_signers_are_published(manifest, small_image, world_pki):
    assert {loader.name for loader in manifest.loaders} == set(small_image.esp)
    (mboot,) = (loader for loader in manifest.loaders if loader.name.endswith("mboot64.efi"))
    assert authenticode_digest(small_image.esp[mboot.name], "sha256") in mboot.digests
    assert manifest.signers == (world_pki.early_signers[0].key.certificate_der,)


def test_merging_keeps_each_entry_once(manifest):
    assert manifest.merged(manifest) == manifest
    assert ReferenceManifest().merged(manifest) == manifest


def test_a_manifest_pickles_with_its_index(manifest):
    again = pickle.loads(pickle.dumps(manifest))
    assert again == manifest
    digest = manifest.components[0].digests[0]
    assert again.with_digest(digest) == manifest.with_digest(digest) != ()


def test_json_is_read_back(manifest):
    code = ReferenceCode(name="DXE", pcr=0, digests=(b"\1", b"\2"), required=False)
    platform = ReferencePlatform(
        model="m",
        code=(code,),
        platform_keys=(b"p",),
        exchange_keys=(b"k",),
        allowed=(b"a",),
        forbidden=(b"f",),
    )
    both = manifest.merged(ReferenceManifest(platforms=(platform,)))
    for each in (manifest, both):
        assert ReferenceManifest.from_json(each.to_json()) == each
    assert both.platforms == (platform,)
    assert (
        ReferenceManifest.from_json('{"components": [], "loaders": [], "signers": []}') == ReferenceManifest()
    )


def test_the_release_of_a_bank_is_published(manifest, small_image):
    (release,) = manifest.releases
    database = hashlib.sha256(gzip.decompress(small_image.bank.files["imgdb.tgz"])).hexdigest()
    vibs = [record.descriptor for record in small_image.bank.database.records if record.files]
    assert release == (*sorted((vib.name, vib.version) for vib in vibs), ("imgdb.tgz", database))
    assert len(release) > 2


def test_the_order_of_a_bank_is_published(manifest, small_image):
    assert manifest.orders == (small_image.bank.config.load_order,)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"components": [], "loaders": [], "signers": [], "more": 1}',
        '{"components": {}, "loaders": [], "signers": []}',
        '{"components": [{"name": "a"}], "loaders": [], "signers": []}',
        '{"components": [], "loaders": [{"name": 1, "digests": []}], "signers": []}',
        '{"components": [], "loaders": [{"name": "a", "digests": ["zz"]}], "signers": []}',
        '{"components": [], "loaders": [], "signers": [5]}',
        "[" * 100_000,
    ],
)
def test_json_that_is_no_manifest_is_refused(text):
    with pytest.raises(FormatError):
        ReferenceManifest.from_json(text)


def test_a_huge_text_passes_a_named_limit(monkeypatch):
    monkeypatch.setattr(manifest_module, "MANIFEST_BYTES_MAX", 10)
    with pytest.raises(LimitError):
        ReferenceManifest.from_json(" " * 11)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "digests", "vib_name", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(json_values, json_values, json_values)
def test_any_json_is_a_manifest_or_refused(components, loaders, signers):
    text = json.dumps({"components": components, "loaders": loaders, "signers": signers})
    try:
        read = ReferenceManifest.from_json(text)
    except FormatError:
        return
    assert ReferenceManifest.from_json(read.to_json()) == read
