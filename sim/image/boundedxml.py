"""XML as the image formats use it: elements, attributes and text, nothing that expands or nests without end.

Models a small tree that is read under four limits.  Any document type or entity declaration is refused, the bytes
are read as UTF-8 whatever they claim, and depth and number of elements are counted while reading, so a hostile file
is refused before it costs memory.

Leaves out namespaces, comments and processing instructions (skipped; a signature covers the original bytes).

Sources: the XML attacks of CVE-2003-1564 (entity expansion) and CVE-2024-8176 (nesting); defusedxml's documentation.
"""

from __future__ import annotations

from xml.etree.ElementTree import ParseError

import attrs

from sim.errors import FormatError, LimitError

__all__ = [
    "ATTRIBUTES_MAX",
    "DEPTH_MAX",
    "ELEMENTS_MAX",
    "MARKS_MAX",
    "XML_BYTES_MAX",
    "Node",
    "escape",
    "parse_xml",
]

XML_BYTES_MAX = 8 << 20
DEPTH_MAX = 16
ELEMENTS_MAX = 100_000
ATTRIBUTES_MAX = 16
MARKS_MAX = {b"<": 4 * ELEMENTS_MAX, b"=": ELEMENTS_MAX, b"&": ELEMENTS_MAX}
"""Tags, attributes and references that a document can have at most: a parser keeps or announces each of them."""


@attrs.define
class Node:
    """One element: its tag, attributes, text before the first child, and children in order."""

    tag: str
    attributes: dict[str, str]
    text: str = ""
    children: list[Node] = attrs.field(factory=list)

    def named(self, tag: str) -> list[Node]:
        """Return the children of that tag in order."""
        return [child for child in self.children if child.tag == tag]


def parse_xml(data: bytes, what: str) -> Node:
    """Return the root element of an XML document; `what` names the format in errors."""
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import DefusedXMLParser

    if len(data) > XML_BYTES_MAX:
        raise LimitError(what, "", f"more than {XML_BYTES_MAX} bytes of XML")
    for mark, count_max in MARKS_MAX.items():
        if data.count(mark) > count_max:
            raise LimitError(what, "", f"more than {count_max} times {mark.decode()!r}")
    builder = _BoundedBuilder(what)
    parser = DefusedXMLParser(target=builder, encoding="utf-8", forbid_dtd=True)
    try:
        parser.feed(data)
        parser.close()
    except DefusedXmlException:
        raise FormatError(what, "", "a document type or entity declaration is not allowed") from None
    except ParseError as error:  # its own words differ from one version of expat to the next
        line, column = error.position
        raise FormatError(what, f"line {line}, column {column}", "not well-formed XML") from None
    except ValueError:
        raise FormatError(what, "", "not well-formed XML") from None
    assert builder.root is not None, "the parser refuses a document without an element"
    return builder.root


def escape(text: str) -> str:
    """Return the text as it stands in element content or a double-quoted attribute."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace('"', "&quot;")


class _BoundedBuilder:
    """The target of the XML parser: builds nodes and enforces the limits while they come in."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.root: Node | None = None
        self._open: list[Node] = []
        self._text: list[list[str]] = []
        self._count = 0

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """Open an element."""
        self._count += 1
        if self._count > ELEMENTS_MAX:
            raise LimitError(self.what, f"element {tag[:40]}", f"more than {ELEMENTS_MAX} elements")
        if len(self._open) >= DEPTH_MAX:
            raise LimitError(self.what, f"element {tag[:40]}", f"nested deeper than {DEPTH_MAX}")
        if len(attributes) > ATTRIBUTES_MAX:
            raise LimitError(self.what, f"element {tag[:40]}", f"more than {ATTRIBUTES_MAX} attributes")
        node = Node(tag, attributes)
        if self._open:
            self._open[-1].children.append(node)
        else:
            self.root = node
        self._open.append(node)
        self._text.append([])

    def data(self, text: str) -> None:
        """Take a run of text; text after a child is only allowed to be white space."""
        node = self._open[-1]
        if not node.children:
            self._text[-1].append(text)
        elif text.strip():
            raise FormatError(self.what, f"element {node.tag[:40]}", "text between elements")

    def end(self, tag: str) -> None:
        """Close the element."""
        del tag
        self._open.pop().text = "".join(self._text.pop())

    def close(self) -> None:
        """Take the end of the document."""
