from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.errors import FormatError, LimitError
from sim.image import boundedxml
from sim.image.boundedxml import DEPTH_MAX, MARKS_MAX, escape, parse_xml


def billion_laughs(levels):
    entities = ['<!ENTITY a0 "lol">']
    entities += [f'<!ENTITY a{number} "{f"&a{number - 1};" * 10}">' for number in range(1, levels)]
    return f"<!DOCTYPE x [{''.join(entities)}]><x>&a{levels - 1};</x>".encode()


@pytest.mark.parametrize(
    "data",
    [
        billion_laughs(7),
        billion_laughs(10),
        b"<!DOCTYPE x><x/>",
        b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><x/>',
        b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "http://127.0.0.1/">]><x>&e;</x>',
    ],
)
def test_any_document_type_is_refused(data):
    with pytest.raises(FormatError, match="document type"):
        parse_xml(data, "x")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-7"])
def test_another_encoding_cannot_hide_a_document_type(encoding):
    with pytest.raises(FormatError):
        parse_xml(billion_laughs(3).decode().encode(encoding), "x")
    declared = f'<?xml version="1.0" encoding="{encoding}"?><x>text</x>'.encode()
    assert parse_xml(declared, "x").text == "text"


def test_two_hundred_thousand_nested_elements_are_refused():
    with pytest.raises(LimitError, match="deeper"):
        parse_xml(b"<a>" * 200_000 + b"</a>" * 200_000, "x")


def test_the_depth_limit_is_exact():
    good = b"<a>" * DEPTH_MAX + b"</a>" * DEPTH_MAX
    assert parse_xml(good, "x").tag == "a"
    with pytest.raises(LimitError):
        parse_xml(b"<a>" + good + b"</a>", "x")


def test_the_number_of_elements_and_attributes_is_limited(monkeypatch):
    monkeypatch.setattr(boundedxml, "ELEMENTS_MAX", 3)
    monkeypatch.setattr(boundedxml, "ATTRIBUTES_MAX", 1)
    assert len(parse_xml(b"<a><b/><b/></a>", "x").children) == 2
    with pytest.raises(LimitError, match="elements"):
        parse_xml(b"<a><b/><b/><b/></a>", "x")
    with pytest.raises(LimitError, match="attributes"):
        parse_xml(b"<a p='1' q='2'/>", "x")


def test_the_size_is_limited_before_parsing(monkeypatch):
    monkeypatch.setattr(boundedxml, "XML_BYTES_MAX", 10)
    with pytest.raises(LimitError):
        parse_xml(b"<a>0123456789</a>", "x")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<a>",
        b"<a></b>",
        b"<a/><b/>",
        b"\xff\xfe",
        b"<a>&unknown;</a>",
        b"<a>\0</a>",
        b"<a b='1' b='2'/>",
    ],
)
def test_what_is_not_well_formed_is_a_format_error(data):
    with pytest.raises(FormatError):
        parse_xml(data, "x")


def test_text_between_elements_is_refused_and_white_space_passed_over():
    assert parse_xml(b"<a> <b/>\n <c/> </a>", "x").named("c")
    with pytest.raises(FormatError, match="between"):
        parse_xml(b"<a><b/>text<c/></a>", "x")


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=30))
def test_escaped_text_is_read_back(text):
    node = parse_xml(f'<a b="{escape(text)}">{escape(text)}</a>'.encode(), "x")
    assert node.text == text
    assert node.attributes["b"] == text


@given(st.binary(max_size=120))
def test_any_bytes_are_a_tree_or_a_format_error(data):
    with suppress(FormatError):
        assert parse_xml(data, "x").tag


@pytest.mark.parametrize("mark", sorted(MARKS_MAX))
def test_too_many_tags_attributes_or_references_are_refused_before_they_are_read(mark, monkeypatch):
    piece = {b"<": b"<a/>", b"=": b"= ", b"&": b"&#65;"}[mark]
    data = b"<v>" + piece * (MARKS_MAX[mark] + 1) + b"</v>"
    monkeypatch.setattr("defusedxml.ElementTree.DefusedXMLParser", None)
    with pytest.raises(LimitError, match=f"times {mark.decode()!r}"):
        parse_xml(data, "x")
