"""The file tree of an image: what the payloads of all its VIBs give when they lie over one another.

Models: each path is one thing.  A directory may stand in many payloads; a file or link stands once in a VIB, in two VIBs
only where an overlay may replace it, and then as the same kind of thing; nothing lies under a file or link.  A link is
followed through the other links of the tree, as a kernel would: it may neither climb above the root nor go in a circle.
So what no single archive shows (a link in one payload, a file under it in another) is seen here.

Leaves out: contents, and links into places that no VIB holds (a datastore): these cannot be followed.

Sources: the archive traversal incidents CVE-2007-4559, CVE-2021-41131 and "Zip Slip"; POSIX.1-2017, path resolution.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import attrs

from sim.image.metadata import Descriptor
from sim.image.tar import EntryKind, TarEntry

__all__ = ["LINKS_FOLLOWED_MAX", "Node", "Part", "part_of", "tree_problems"]

LINKS_FOLLOWED_MAX = 40
"""Links that one path may go through; the number at which Linux gives up, too."""


@attrs.frozen(kw_only=True)
class Node:
    """One entry of a payload without its data."""

    path: str
    kind: EntryKind
    target: str
    mode: int
    root_owned: bool


@attrs.frozen(kw_only=True)
class Part:
    """What one VIB brings to the tree, payload after payload."""

    descriptor: Descriptor
    nodes: tuple[Node, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths of its files and links, sorted."""
        return tuple(sorted({node.path for node in self.nodes if node.kind is not EntryKind.DIRECTORY}))


def part_of(descriptor: Descriptor, payloads: Iterable[Iterable[TarEntry]]) -> Part:
    """Return the part of a VIB from the entries of each of its payloads; the data is let go payload by payload."""
    return Part(descriptor=descriptor, nodes=tuple(_node(entry) for entries in payloads for entry in entries))


def tree_problems(parts: Iterable[Part]) -> Iterator[str]:
    """Yield what is wrong with the tree of these parts, which lie over one another in this order."""
    tree: dict[str, tuple[Node, str]] = {}
    for part in parts:
        yield from _add(part, tree)
    for path, (_, vib_id) in tree.items():
        parent = path.rpartition("/")[0]
        while parent:
            above = tree.get(parent)
            if above is not None and above[0].kind is not EntryKind.DIRECTORY:
                yield f"/{path} of VIB {vib_id} lies under /{parent}, a {_word(above[0])} of VIB {above[1]}"
            parent = parent.rpartition("/")[0]
    links = {path: node.target for path, (node, _) in tree.items() if node.kind is EntryKind.SYMLINK}
    for path in links:
        fault = _follow(path, links)
        if fault:
            yield f"link /{path} of VIB {tree[path][1]} {fault}"


def _node(entry: TarEntry) -> Node:
    return Node(
        path=entry.path,
        kind=entry.kind,
        target=entry.target,
        mode=entry.mode,
        root_owned=entry.uid == entry.gid == 0,
    )


def _add(part: Part, tree: dict[str, tuple[Node, str]]) -> Iterator[str]:
    """Lay a part over the tree."""
    vib_id = part.descriptor.vib_id
    own: set[str] = set()
    for node in part.nodes:
        if node.kind is not EntryKind.DIRECTORY:
            if node.path in own:
                yield f"/{node.path} stands twice in VIB {vib_id}"
            own.add(node.path)
        below = tree.get(node.path)
        if below is not None and below[0].kind is not node.kind:
            yield f"/{node.path} is a {_word(below[0])} of VIB {below[1]} and a {_word(node)} of VIB {vib_id}"
        tree[node.path] = node, vib_id


def _word(node: Node) -> str:
    return {EntryKind.FILE: "file", EntryKind.DIRECTORY: "directory", EntryKind.SYMLINK: "link"}[node.kind]


def _follow(path: str, links: Mapping[str, str]) -> str:
    """Follow a link through the tree; return what is wrong with it, nothing if it ends inside the root."""
    here: list[str] = path.split("/")[:-1]
    ahead = _reversed(links[path], here)
    followed = 1
    while ahead:
        part = ahead.pop()
        if part == "..":
            if not here:
                return f"to {links[path]!r} leaves the root"
            here.pop()
            continue
        here.append(part)
        target = links.get("/".join(here))
        if target is not None:
            followed += 1
            if followed > LINKS_FOLLOWED_MAX:
                return f"goes through more than {LINKS_FOLLOWED_MAX} links"
            here.pop()
            ahead += _reversed(target, here)
    return ""


def _reversed(target: str, here: list[str]) -> list[str]:
    """Return the parts of a link's target, the next one last; an absolute target begins again at the root."""
    if target.startswith("/"):
        here.clear()
    return [part for part in reversed(target.split("/")) if part not in ("", ".")]
