"""Invariants of frames and mappings: who may write what, who refers to what, who sees which bytes.

Each check takes pictures (`sim.kernel.memory.protocol.MemoryPicture`) of one manager, where it needs two one before and
one after a single operation, and raises `InvariantViolation`.

Models nothing.  Leaves out what a picture does not show.  Sources: the numbers are those of `sim.testing.invariants`.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import evolve

from sim.hw.mmu import Rights
from sim.kernel.memory.protocol import HostView, Leaf, MemoryPicture, Page, Place, Use
from sim.testing.invariants.violation import InvariantViolation

__all__ = [
    "check_conservation",
    "check_copy_on_write",
    "check_exclusive_writable",
    "check_locality",
    "check_no_stale_grant",
    "check_reverse_map",
    "check_scrubbed",
    "check_share_only_equals",
    "check_write_xor_execute",
]

_MAPPED = (Use.PRIVATE, Use.SHARED)


def check_no_stale_grant(picture: MemoryPicture) -> None:
    """Invariant 2: no processor grants what the tables deny, except for a page whose shootdown is still to come.

    Even then its old frame belongs to nobody else.
    """
    users = _users(picture)
    for (pcpu, space, page), cached in picture.cached.items():
        leaf = picture.spaces[space].leaves.get(page)
        where = f"pCPU {pcpu} has {_shown((space, page), cached)} cached"
        if (space, page) in picture.pending:
            others = [user for user in users.get(cached.frame, ()) if user != (space, page)]
            if others and cached.rights.write:
                text = f"{where}, not yet shot down, and the frame was given to {_name(others[0])}"
                raise InvariantViolation(2, text)
        elif leaf is None or leaf.frame != cached.frame or _exceeds(cached.rights, leaf.rights):
            tables = "nothing" if leaf is None else _shown((space, page), leaf)
            raise InvariantViolation(2, f"{where}, the tables have {tables}, and no shootdown is pending")


def check_write_xor_execute(picture: MemoryPicture) -> None:
    """Invariant 4: no page is writable and executable, and no frame is so through two mappings of one owner.

    Declared JIT pairs are exempt from the second part.
    """
    writers: dict[tuple[str, int], Page] = {}
    runners: dict[tuple[str, int], Page] = {}
    for number, page, leaf in _leaves(picture):
        if leaf.rights.write and leaf.rights.execute:
            raise InvariantViolation(4, f"{_shown((number, page), leaf)} is writable and executable")
        key = (picture.spaces[number].owner, leaf.frame)
        if leaf.rights.write:
            writers.setdefault(key, (number, page))
        if leaf.rights.execute:
            runners.setdefault(key, (number, page))
    for key, writer in writers.items():
        runner = runners.get(key)
        if runner is not None and not _is_jit_pair(picture, writer, runner):
            text = f"{key[0]} writes frame {key[1]:#x} at {_name(writer)} and executes it at {_name(runner)}"
            raise InvariantViolation(4, text)


def check_exclusive_writable(picture: MemoryPicture) -> None:
    """Invariant 5: two owners write a frame only by design, and nobody writes one that is to be copied on a write."""
    writer_of: dict[int, Page] = {}
    to_copy: dict[int, Page] = {}
    for number, page, leaf in _leaves(picture):
        frame = picture.frames.get(leaf.frame)
        by_design = frame is not None and frame.by_design
        if leaf.copy_on_write or (frame is not None and frame.use is Use.SHARED and not by_design):
            to_copy.setdefault(leaf.frame, (number, page))
        if leaf.rights.write and not by_design:
            first = writer_of.setdefault(leaf.frame, (number, page))
            if picture.spaces[first[0]].owner != picture.spaces[number].owner:
                text = f"frame {leaf.frame:#x} is writable at {_name(first)} and, by another owner, at {_name((number, page))}"
                raise InvariantViolation(5, text)
    for number, writer in writer_of.items():
        if number in to_copy:
            text = f"frame {number:#x} is shared copy-on-write at {_name(to_copy[number])}, writable at {_name(writer)}"
            raise InvariantViolation(5, text)


def check_reverse_map(picture: MemoryPicture) -> None:
    """Invariant 6: the count of a frame is the number of leaves that map it, and it is 0 for frames that none may map."""
    users = _users(picture)
    for number, found in users.items():
        frame = picture.frames.get(number)
        if frame is None or frame.use not in _MAPPED:
            use = "free" if frame is None else str(frame.use)
            raise InvariantViolation(6, f"frame {number:#x} is {use}, and mapped at {_name(found[0])}")
    for number, frame in picture.frames.items():
        leaves = len(users.get(number, ()))
        if frame.references != leaves or (frame.use in _MAPPED and not leaves):
            text = f"{frame.use} frame {number:#x} has count {frame.references}, mapped by {leaves} leaves"
            raise InvariantViolation(6, text)


def check_conservation(picture: MemoryPicture) -> None:
    """Invariant 7: all frames of the host, and all pages of each VM, are in exactly one place."""
    host = picture.host
    if host is not None:
        parts = (
            host.free + host.private + host.shared + host.tables + host.overhead + host.cache + host.kernel
        )
        if parts != host.total:
            raise InvariantViolation(7, f"{parts} frames are accounted for, of {host.total}: {host}")
        if picture.frames:
            _check_counts(picture, host)
    for name, vm in picture.vms.items():
        places = vm.held + vm.ballooned + vm.compressed + vm.swapped + vm.untouched
        if places != vm.configured:
            raise InvariantViolation(7, f"{name} has {places} pages in all places, of {vm.configured}: {vm}")


def check_scrubbed(before: MemoryPicture, after: MemoryPicture) -> None:
    """Invariant 8: a page that was not there before, or was given up to the balloon, reads as zeros."""
    for number, page, _ in _leaves(after):
        old = before.spaces.get(number)
        known = old is not None and (
            page in old.leaves or old.away.get(page, Place.BALLOONED) is not Place.BALLOONED
        )
        content = after.content((number, page))
        if not known and content:
            text = (
                f"{_name((number, page))} is new and reads {content[:16].hex()}, written by somebody before"
            )
            raise InvariantViolation(8, text)


def check_copy_on_write(
    before: MemoryPicture, after: MemoryPicture, written: Page | None = None, data: bytes = b""
) -> None:
    """Invariant 9: nothing but a write changes what a page reads, and a write only its own page, by the bytes written.

    `written` got `data` at its beginning.  If its frame was shared, it has a frame of its own now, and the old one a
    user less.
    """
    for number, page, leaf in _leaves(before):
        new = after.spaces[number].leaves.get(page)
        if new is None:
            continue
        expected = before.content((number, page)) or b""
        if (number, page) == written:
            expected = (data + expected[len(data) :]).rstrip(b"\0")
            _check_break(before, after, written, leaf, new)
        found = after.content((number, page)) or b""
        if found != expected:
            cause = "a write to it" if (number, page) == written else "an operation on another page"
            text = f"{_name((number, page))} read {_hex(expected)} and reads {_hex(found)} after {cause}"
            raise InvariantViolation(9, text)


def check_share_only_equals(before: MemoryPicture, after: MemoryPicture) -> None:
    """Invariant 10: pages that share a frame have one salt, and were equal in every byte before they did."""
    for number, users in _users(after).items():
        frame = after.frames.get(number)
        if len(users) < 2 or (frame is not None and frame.by_design):
            continue
        old = [user for user in users if _frame_of(before, user) == number]
        first = (old or users)[0]
        for user in users:
            if after.spaces[user[0]].salt != after.spaces[first[0]].salt:
                salts = f"{after.spaces[first[0]].salt!r} and {after.spaces[user[0]].salt!r}"
                text = f"{_name(first)} and {_name(user)} share frame {number:#x} under the salts {salts}"
                raise InvariantViolation(10, text)
            if _frame_of(before, user) not in (None, number) and _read(before, user) != _read(before, first):
                contents = f"{_hex(_read(before, first))} and {_hex(_read(before, user))}"
                text = f"{_name(first)} and {_name(user)} share frame {number:#x}, and held {contents}"
                raise InvariantViolation(10, text)


def check_locality(before: MemoryPicture, after: MemoryPicture, *spaces: int) -> None:
    """Invariant 21: an operation on some spaces changes no translation of another, but may take its right to write."""
    for number, old in before.spaces.items():
        if number in spaces:
            continue
        new = after.spaces[number]
        for page in (
            old.leaves.keys() | new.leaves.keys()
        ):  # in any order: the first violation found is raised
            was, now = old.leaves.get(page), new.leaves.get(page)
            if was is None or now is None or not _same_but_for_writing(was, now):
                text = f"{_name((number, page))} was {was} and is {now} after an operation on space {spaces}"
                raise InvariantViolation(21, text)


def _check_break(before: MemoryPicture, after: MemoryPicture, page: Page, old: Leaf, new: Leaf) -> None:
    """Check the frames of a write to a page that was shared."""
    shared_by = len(_users(before)[old.frame])
    if not old.copy_on_write or shared_by < 2:
        return
    left = len(_users(after).get(old.frame, ()))
    if new.frame == old.frame or left != shared_by - 1 or len(_users(after)[new.frame]) != 1:
        text = (
            f"{_name(page)} was written while {shared_by} pages shared frame {old.frame:#x}; "
            f"it is in frame {new.frame:#x} now, and {left} pages share the old one"
        )
        raise InvariantViolation(9, text)


def _check_counts(picture: MemoryPicture, host: HostView) -> None:
    for use, counted in ((Use.PRIVATE, host.private), (Use.SHARED, host.shared)):
        found = sum(frame.use is use for frame in picture.frames.values())
        if found != counted:
            raise InvariantViolation(7, f"{found} frames are {use}, the host counts {counted}")


def _leaves(picture: MemoryPicture) -> Iterator[tuple[int, int, Leaf]]:
    for number, space in picture.spaces.items():
        for page, leaf in space.leaves.items():
            yield number, page, leaf


def _users(picture: MemoryPicture) -> dict[int, list[Page]]:
    """Return the pages that map each frame."""
    users: dict[int, list[Page]] = {}
    for number, page, leaf in _leaves(picture):
        users.setdefault(leaf.frame, []).append((number, page))
    return users


def _frame_of(picture: MemoryPicture, page: Page) -> int | None:
    space = picture.spaces.get(page[0])
    leaf = None if space is None else space.leaves.get(page[1])
    return None if leaf is None else leaf.frame


def _read(picture: MemoryPicture, page: Page) -> bytes:
    return (picture.content(page) or b"") if page[0] in picture.spaces else b""


def _is_jit_pair(picture: MemoryPicture, writer: Page, runner: Page) -> bool:
    return writer[0] == runner[0] and (writer[1], runner[1]) in picture.spaces[writer[0]].jit_pairs


def _exceeds(one: Rights, other: Rights) -> bool:
    return (
        (one.write and not other.write)
        or (one.user and not other.user)
        or (one.execute and not other.execute)
    )


def _same_but_for_writing(was: Leaf, now: Leaf) -> bool:
    if now.frame != was.frame or (now.rights.write and not was.rights.write):
        return False
    return evolve(now.rights, write=False) == evolve(was.rights, write=False)


def _name(page: Page) -> str:
    return f"page {page[1]:#x} of space {page[0]}"


def _shown(page: Page, leaf: Leaf) -> str:
    return f"{_name(page)} -> frame {leaf.frame:#x} {leaf.rights}"


def _hex(content: bytes) -> str:
    return content[:16].hex() or "zeros"
