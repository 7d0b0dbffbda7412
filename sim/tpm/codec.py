"""How TPM structures become bytes: codecs that a declaration is compiled to.

Models: the marshalling rules of the library (big-endian, counted lists, sized buffers, unions chosen by a selector)
with the response code that the TPM gives for each way of being wrong.  Runs of fixed-size integers of a structure are
compiled to one `struct.Struct`.
Leaves out: the structures themselves (`sim.tpm.wire`) and the number of the parameter in a response code, which only
the caller knows.
Source: TCG TPM 2.0 Library part 2, chapters 5 to 15; part 4 for the order of the checks.
"""
# ruff: noqa: D102 - decode, encode and check are described at `Codec`

from __future__ import annotations

import struct
from collections.abc import Container, Mapping
from operator import attrgetter
from types import MappingProxyType
from typing import Any, TypeVar

import attrs

from sim.errors import FormatError
from sim.tpm.constants import TPM_RC, rc_name

__all__ = [
    "Codec",
    "Empty",
    "FixedBytes",
    "ListOf",
    "Number",
    "Remembered",
    "Select",
    "Sized",
    "SizedBytes",
    "Structure",
    "WireError",
    "codec_of",
    "variant",
    "wire",
]


class WireError(FormatError):
    """Bytes that are no such structure; `rc` is the TPM's response code for it, without a parameter number."""

    def __init__(self, rc: int, message: str) -> None:
        super().__init__("TPM structure", rc_name(rc), message)
        self.rc = rc

    def __reduce__(self) -> tuple[object, ...]:
        return (WireError, (self.rc, self.message))


class Codec:
    """Turns values of one kind into bytes and back."""

    code = ""
    """The `struct` letter, for a codec of fixed size."""

    def decode(self, data: bytes, at: int, end: int) -> tuple[Any, int]:
        """Return the value that starts at `at`, and the offset behind it; never reads at or past `end`."""
        raise NotImplementedError

    def encode(self, value: Any) -> bytes:
        """Return the bytes of `value`."""
        raise NotImplementedError

    def check(self, value: Any) -> None:
        """Raise `WireError` if a decoded `value` is not one of this kind."""


class Number(Codec):
    """An unsigned integer; with `allowed`, only those values, and with `reserved`, none of those bits."""

    def __init__(
        self,
        code: str,
        *,
        allowed: Container[int] | None = None,
        reserved: int = 0,
        rc: TPM_RC = TPM_RC.VALUE,
    ) -> None:
        self.code = code
        self.allowed = allowed
        self.reserved = reserved
        self.rc = rc.value
        packer = struct.Struct(">" + code)
        self._size, self._unpack, self._pack = packer.size, packer.unpack_from, packer.pack
        self.is_checked = allowed is not None or reserved != 0

    def decode(self, data: bytes, at: int, end: int) -> tuple[int, int]:
        after = at + self._size
        if after > end:
            raise WireError(TPM_RC.INSUFFICIENT, f"{after - end} bytes are missing")
        value: int = self._unpack(data, at)[0]
        if self.is_checked:
            self.check(value)
        return value, after

    def encode(self, value: int) -> bytes:
        return self._pack(value)

    def check(self, value: int) -> None:
        if self.allowed is not None and value not in self.allowed:
            raise WireError(self.rc, f"0x{value:x} is not allowed here")
        if value & self.reserved:
            raise WireError(TPM_RC.RESERVED_BITS, f"0x{value:x} has reserved bits set")


class Empty(Codec):
    """Nothing: the branch of a union that has no content."""

    def decode(self, data: bytes, at: int, end: int) -> tuple[None, int]:
        return None, at

    def encode(self, value: None) -> bytes:
        return b""


class FixedBytes(Codec):
    """Exactly `size` bytes."""

    def __init__(self, size: int) -> None:
        self.size = size

    def decode(self, data: bytes, at: int, end: int) -> tuple[bytes, int]:
        after = at + self.size
        if after > end:
            raise WireError(TPM_RC.INSUFFICIENT, f"{after - end} bytes are missing")
        return data[at:after], after

    def encode(self, value: bytes) -> bytes:
        if len(value) != self.size:
            raise WireError(TPM_RC.SIZE, f"{len(value)} bytes, want {self.size}")
        return value


class SizedBytes(Codec):
    """A counted buffer (TPM2B) of `size_min` to `size_max` bytes; `rc` is given for another size."""

    def __init__(
        self, size_max: int, *, size_min: int = 0, code: str = "H", rc: TPM_RC = TPM_RC.SIZE
    ) -> None:
        self.size_max = size_max
        self.size_min = size_min
        self.rc = rc.value
        packer = struct.Struct(">" + code)
        self._size, self._unpack, self._pack = packer.size, packer.unpack_from, packer.pack

    def decode(self, data: bytes, at: int, end: int) -> tuple[bytes, int]:
        start = at + self._size
        if start > end:
            raise WireError(TPM_RC.INSUFFICIENT, "the size is cut short")
        size = self._unpack(data, at)[0]
        if not self.size_min <= size <= self.size_max:
            raise WireError(self.rc, f"size {size} is not in {self.size_min} .. {self.size_max}")
        after = start + size
        if after > end:
            raise WireError(TPM_RC.INSUFFICIENT, f"{after - end} bytes are missing")
        return data[start:after], after

    def encode(self, value: bytes) -> bytes:
        size = len(value)
        if not self.size_min <= size <= self.size_max:
            raise WireError(self.rc, f"size {size} is not in {self.size_min} .. {self.size_max}")
        return self._pack(size) + value


class Sized(Codec):
    """A TPM2B that holds a structure: the size must be that of the structure, and not zero."""

    def __init__(self, inner: Codec | type[Structure]) -> None:
        self.inner = codec_of(inner)

    def decode(self, data: bytes, at: int, end: int) -> tuple[Any, int]:
        size, start = _UINT16.decode(data, at, end)
        if size == 0:
            raise WireError(TPM_RC.SIZE, "the structure is empty")
        value, after = self.inner.decode(data, start, end)
        if after != start + size:
            raise WireError(TPM_RC.SIZE, f"size {size}, but the structure has {after - start} bytes")
        return value, after

    def encode(self, value: Any) -> bytes:
        content = self.inner.encode(value)
        return _UINT16.encode(len(content)) + content


class ListOf(Codec):
    """A counted list (TPML) of at most `count_max` entries; decodes to a tuple."""

    def __init__(self, inner: Codec | type[Structure], count_max: int) -> None:
        self.inner = codec_of(inner)
        self.count_max = count_max

    def decode(self, data: bytes, at: int, end: int) -> tuple[tuple[Any, ...], int]:
        count, at = _UINT32.decode(data, at, end)
        if count > self.count_max:
            raise WireError(TPM_RC.SIZE, f"{count} entries, at most {self.count_max} are allowed")
        decode = self.inner.decode
        if count == 1:
            value, at = decode(data, at, end)
            return (value,), at
        values = []
        for _ in range(count):
            value, at = decode(data, at, end)
            values.append(value)
        return tuple(values), at

    def encode(self, value: tuple[Any, ...]) -> bytes:
        if len(value) > self.count_max:
            raise WireError(TPM_RC.SIZE, f"{len(value)} entries, at most {self.count_max} are allowed")
        encode = self.inner.encode
        return _UINT32.encode(len(value)) + b"".join([encode(each) for each in value])


class Remembered(Codec):
    """Another codec whose last answer is kept: a device reads a command, and the words about it read it again."""

    def __init__(self, inner: Codec) -> None:
        self.inner = inner
        self._last: tuple[bytes, int, int, tuple[Any, int]] = (b"", -1, -1, (None, -1))

    def decode(self, data: bytes, at: int, end: int) -> tuple[Any, int]:
        known, known_at, known_end, answer = self._last
        if known is not data or known_at != at or known_end != end:
            answer = self.inner.decode(data, at, end)
            if type(data) is bytes:  # what could change under the same identity is read again
                self._last = data, at, end, answer
        return answer

    def encode(self, value: Any) -> bytes:
        return self.inner.encode(value)


class Select:
    """A union (TPMU): the value of the field named `selector` chooses the codec."""

    def __init__(self, selector: str, branches: Mapping[int, Codec | type[Structure]]) -> None:
        self.selector = selector
        self.branches = {int(key): codec_of(codec) for key, codec in branches.items()}

    def branch(self, selector_value: int) -> Codec:
        """Return the codec of that selector value."""
        found = self.branches.get(selector_value)
        if found is None:
            raise WireError(TPM_RC.SELECTOR, f"{self.selector} 0x{selector_value:x} has no such content")
        return found


S = TypeVar("S", bound="Structure")


class Structure:
    """Base of the structures: frozen attrs classes whose fields are declared with `wire`."""

    __slots__ = ()

    def encode(self) -> bytes:
        """Return the bytes of this structure."""
        return codec_of(type(self)).encode(self)

    @classmethod
    def decode(cls: type[S], data: bytes) -> S:
        """Return the structure that `data` holds, all of it; `WireError` otherwise."""
        value, after = codec_of(cls).decode(data, 0, len(data))
        if after != len(data):
            raise WireError(TPM_RC.SIZE, f"{len(data) - after} bytes follow the structure")
        return value  # type: ignore[no-any-return]


class _StructureCodec(Codec):
    """The codec that is derived from the fields of a structure."""

    def __init__(
        self, cls: type[Structure], others: Mapping[str, Codec | Select] = MappingProxyType({})
    ) -> None:
        self.cls = cls
        self._steps: list[tuple[str, Codec | None, Select | None]] = []
        self._packers: list[_Run | None] = []
        run: list[tuple[str, Codec]] = []
        for field in attrs.fields(cls):  # type: ignore[arg-type]
            codec = others.get(field.name, field.metadata["wire"])
            if isinstance(codec, Codec) and codec.code:
                run.append((field.name, codec))
                continue
            self._close(run)
            run = []
            self._packers.append(None)
            if isinstance(codec, Select):
                self._steps.append((field.name, None, codec))
            else:
                self._steps.append((field.name, codec, None))
        self._close(run)
        self._plan = list(zip(self._packers, self._steps, strict=True))

    def _close(self, run: list[tuple[str, Codec]]) -> None:
        if run:
            self._packers.append(_Run(run))
            self._steps.append(("", None, None))

    def decode(self, data: bytes, at: int, end: int) -> tuple[Any, int]:
        values: dict[str, Any] = {}
        for run, (name, codec, select) in self._plan:
            if run is not None:
                at = run.decode(data, at, end, values)
            elif codec is not None:
                values[name], at = codec.decode(data, at, end)
            elif select is not None:
                values[name], at = select.branch(values[select.selector]).decode(data, at, end)
        return self.cls(**values), at

    def encode(self, value: Any) -> bytes:
        parts = []
        for run, (name, codec, select) in self._plan:
            if run is not None:
                parts.append(run.encode(value))
            elif codec is not None:
                parts.append(codec.encode(getattr(value, name)))
            elif select is not None:
                parts.append(select.branch(getattr(value, select.selector)).encode(getattr(value, name)))
        return b"".join(parts)


class _ChosenBytes(Codec):
    """A number, and bytes of the length that it stands for: what a digest with its algorithm is; the short way."""

    def __init__(
        self, cls: type[Structure], number: Number, number_name: str, choice: Select, name: str
    ) -> None:
        self.cls = cls
        self._number, self._number_name, self._choice, self._name = number, number_name, choice, name
        packer = struct.Struct(">" + number.code)
        self._width, self._unpack, self._pack = packer.size, packer.unpack_from, packer.pack
        self._sizes = {
            value: content.size
            for value, content in choice.branches.items()
            if isinstance(content, FixedBytes) and (number.allowed is None or value in number.allowed)
        }

    def decode(self, data: bytes, at: int, end: int) -> tuple[Any, int]:
        start = at + self._width
        if start > end:
            raise WireError(TPM_RC.INSUFFICIENT, f"{start - end} bytes are missing")
        value = self._unpack(data, at)[0]
        size = self._sizes.get(value)
        if size is None:
            self._number.check(value)
            size = len(self._choice.branch(value).decode(data, start, end)[0])
        after = start + size
        if after > end:
            raise WireError(TPM_RC.INSUFFICIENT, f"{after - end} bytes are missing")
        return self.cls(**{self._number_name: value, self._name: data[start:after]}), after

    def encode(self, value: Any) -> bytes:
        number, content = getattr(value, self._number_name), getattr(value, self._name)
        if len(content) != self._sizes.get(number):
            content = self._choice.branch(number).encode(content)
        encoded: bytes = self._pack(number) + content
        return encoded


class _Run:
    """Neighbouring integers of a structure, read and written at once."""

    def __init__(self, fields: list[tuple[str, Codec]]) -> None:
        self.names = tuple(name for name, _ in fields)
        self.codecs = tuple(codec for _, codec in fields)
        self.packer = struct.Struct(">" + "".join(codec.code for codec in self.codecs))
        self._unpack = self.packer.unpack_from
        self._fields_of = attrgetter(*self.names)
        self.checks = tuple(
            (name, codec) for name, codec in fields if isinstance(codec, Number) and codec.is_checked
        )

    def decode(self, data: bytes, at: int, end: int, values: dict[str, Any]) -> int:
        after = at + self.packer.size
        if after > end:
            self._refuse_short(data, at, end)
        values.update(zip(self.names, self._unpack(data, at), strict=True))
        for name, codec in self.checks:
            codec.check(values[name])
        return after

    def encode(self, value: Any) -> bytes:
        fields = self._fields_of(value)
        return self.packer.pack(*fields) if len(self.names) > 1 else self.packer.pack(fields)

    def _refuse_short(self, data: bytes, at: int, end: int) -> None:
        """Raise what reading one integer after the other would have raised first."""
        for codec in self.codecs:
            _, at = codec.decode(data, at, end)


_compiled: dict[type[Structure], Codec] = {}


def codec_of(declared: Codec | type[Structure]) -> Codec:
    """Return the codec of a structure class, compiled once; a codec is returned as it is."""
    if isinstance(declared, Codec):
        return declared
    found = _compiled.get(declared)
    if found is None:
        found = _compiled[declared] = _chosen_bytes(declared) or _StructureCodec(declared)
    return found


def _chosen_bytes(cls: type[Structure]) -> Codec | None:
    """Return the short codec of a structure that is a number and bytes of one length a number, None for others."""
    declared = [(field.name, field.metadata["wire"]) for field in attrs.fields(cls)]  # type: ignore[arg-type]
    match declared:
        case [(str() as number_name, Number() as number), (str() as name, Select() as choice)]:
            if choice.selector == number_name and all(
                type(each) is FixedBytes for each in choice.branches.values()
            ):
                return _ChosenBytes(cls, number, number_name, choice, name)
    return None


def variant(cls: type[Structure], **others: Codec | Select) -> Codec:
    """Return the codec of a structure with other codecs for some of its fields, as a command may ask for."""
    return _StructureCodec(cls, others)


def wire(declared: Codec | Select | type[Structure]) -> Any:
    """Declare a field of a structure by the codec, union or structure class of its content."""
    codec = declared if isinstance(declared, (Codec, Select)) else codec_of(declared)
    return attrs.field(metadata={"wire": codec})


_UINT16 = Number("H")
_UINT32 = Number("I")
