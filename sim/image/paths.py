"""Which path names an image may carry.

Models the rule that every unpacked file stays below the root it is unpacked in: relative paths, no `..`, no empty
part, no backslash, no control character; a symbolic link may not climb above the root, and nothing may lie under it.

Leaves out which paths each acceptance level may write.

Sources: the archive traversal incidents CVE-2007-4559, CVE-2021-41131 and "Zip Slip".
"""

from __future__ import annotations

from sim.errors import FormatError, LimitError

__all__ = ["PATH_CHARS_MAX", "check_link_target", "check_path"]

PATH_CHARS_MAX = 255


def check_path(path: str, what: str, where: str) -> None:
    """Refuse a path that is not plainly below the root it is unpacked in."""
    if len(path) > PATH_CHARS_MAX:
        raise LimitError(what, where, f"path is longer than {PATH_CHARS_MAX} characters")
    if path.startswith("/"):
        raise FormatError(what, where, f"path {path[:60]!r} is absolute")
    _check_characters(path, what, where)
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise FormatError(what, where, f"path {path[:60]!r} has an empty, '.' or '..' part")


def check_link_target(path: str, target: str, what: str, where: str) -> None:
    """Refuse a symbolic link at `path` whose target climbs above the root; absolute targets begin at the root."""
    if not target or len(target) > PATH_CHARS_MAX:
        raise FormatError(what, where, f"link target is empty or longer than {PATH_CHARS_MAX} characters")
    _check_characters(target, what, where)
    depth = 0 if target.startswith("/") else path.count("/")
    for part in target.split("/"):
        if part == "..":
            depth -= 1
        elif part not in ("", "."):
            depth += 1
        if depth < 0:
            raise FormatError(what, where, f"link target {target[:60]!r} leaves the root")


def _check_characters(path: str, what: str, where: str) -> None:
    if not path.isascii() or not path.isprintable() or "\\" in path:
        raise FormatError(what, where, f"path {path[:60]!r} has a backslash, control or non-ASCII character")
