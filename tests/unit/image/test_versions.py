import pytest

from sim.image.acceptance import AcceptanceLevel
from sim.image.metadata import Descriptor, Relation
from sim.image.versions import satisfies, version_key

ORDERED = ["1.0-1", "1.0-2", "1.0-10", "1.0.1-1", "1.9-1", "1.10-1", "1.10.vmw-1", "1.10.1-1", "2-0", "10-0"]
SHUFFLED = ORDERED[5:] + ORDERED[:5]


def vib(version="2.5.1-3", provides=()):
    return Descriptor(
        name="net", version=version, vendor="v", level=AcceptanceLevel.PARTNER_SUPPORTED, provides=provides
    )


def test_versions_are_ordered_by_number_then_release():
    assert sorted(SHUFFLED, key=version_key) == ORDERED


def test_leading_zeros_do_not_count():
    assert version_key("2.00.04-1") == version_key("2.0.4-01")


@pytest.mark.parametrize(
    ("operator", "version", "holds"),
    [
        (None, None, True),
        ("=", "2.5.1-3", True),
        ("=", "2.5.1", True),
        ("=", "2.5", False),
        (">=", "2.5.1-4", False),
        (">=", "2.5.1-3", True),
        (">>", "2.5.1", False),
        (">>", "2.5.0", True),
        ("<<", "2.5.1-3", False),
        ("<<", "2.5.1-4", True),
        ("<=", "2.5.1", True),
        ("<=", "2.4", False),
    ],
)
def test_bounds(operator, version, holds):
    assert satisfies(vib(), Relation(name="net", operator=operator, version=version)) is holds


def test_a_provided_feature_satisfies_with_its_own_version():
    provider = vib(provides=(Relation(name="vmkapi", operator="=", version="2.9"),))
    assert satisfies(provider, Relation(name="vmkapi"))
    assert satisfies(provider, Relation(name="vmkapi", operator=">=", version="2.8"))
    assert not satisfies(provider, Relation(name="vmkapi", operator=">=", version="3.0"))
    assert not satisfies(provider, Relation(name="other"))


def test_a_feature_without_version_satisfies_no_lower_bound():
    bound = Relation(name="vmkapi", operator=">=", version="1.0")
    assert not satisfies(vib(provides=(Relation(name="vmkapi"),)), bound)
