"""The numbers and layouts of ELF64 for x86-64.

Models: header, program header, section header, symbol, relocation and dynamic entry; little-endian only.

Leaves out: what the reader and the builder do not use.

Sources: System V ABI, edition 4.1, chapters 4 and 5; AMD64 psABI 1.0, section 4.4.1 (relocation types).
"""

from __future__ import annotations

import struct

__all__ = ["PAGE_BYTES"]

PAGE_BYTES = 4096

MAGIC = b"\x7fELF\x02\x01\x01"  # 64 bits, little-endian, version 1
ET_REL, ET_EXEC, ET_DYN = 1, 2, 3
EM_X86_64 = 62
TYPE_NAMES = {ET_REL: "ET_REL", ET_EXEC: "ET_EXEC", ET_DYN: "ET_DYN"}

HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")
SYMBOL = struct.Struct("<IBBHQQ")
RELOCATION = struct.Struct("<QQq")
DYNAMIC = struct.Struct("<QQ")

PT_LOAD, PT_DYNAMIC, PT_INTERP, PT_TLS, PT_GNU_STACK, PT_GNU_RELRO = 1, 2, 3, 7, 0x6474E551, 0x6474E552
PF_X, PF_W, PF_R = 1, 2, 4
SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_RELA, SHT_HASH, SHT_DYNAMIC, SHT_NOTE, SHT_NOBITS = range(1, 9)
SHT_REL, SHT_DYNSYM, SHT_INIT_ARRAY, SHT_FINI_ARRAY, SHT_PREINIT_ARRAY, SHT_GROUP = 9, 11, 14, 15, 16, 17
SHT_X86_64_UNWIND = 0x70000001
SHF_WRITE, SHF_ALLOC, SHF_EXEC, SHF_INFO_LINK, SHF_TLS, SHF_COMPRESSED = 1, 2, 4, 0x40, 0x400, 0x800
SHN_UNDEF, SHN_LORESERVE, SHN_ABS, SHN_COMMON = 0, 0xFF00, 0xFFF1, 0xFFF2
GRP_COMDAT = 1

DT_NEEDED, DT_SYMBOLIC = 1, 16
DT_HASH, DT_STRTAB, DT_SYMTAB, DT_RELA, DT_RELASZ, DT_RELAENT = 4, 5, 6, 7, 8, 9
DT_STRSZ, DT_SYMENT, DT_SONAME, DT_PLTRELSZ, DT_PLTREL, DT_TEXTREL, DT_JMPREL = 10, 11, 14, 2, 20, 22, 23
DT_FLAGS, DT_RELRSZ, DT_RELR, DT_GNU_HASH, DT_RELACOUNT = 30, 35, 36, 0x6FFFFEF5, 0x6FFFFFF9
DT_VERSYM, DT_VERDEF, DT_VERDEFNUM = 0x6FFFFFF0, 0x6FFFFFFC, 0x6FFFFFFD
DT_VERNEED, DT_VERNEEDNUM = 0x6FFFFFFE, 0x6FFFFFFF
DF_SYMBOLIC, DF_TEXTREL = 2, 4

RELOCATION_NAMES = {
    1: "64",
    2: "PC32",
    3: "GOT32",
    4: "PLT32",
    5: "COPY",
    6: "GLOB_DAT",
    7: "JUMP_SLOT",
    8: "RELATIVE",
    9: "GOTPCREL",
    10: "32",
    11: "32S",
    12: "16",
    13: "PC16",
    14: "8",
    15: "PC8",
    16: "DTPMOD64",
    17: "DTPOFF64",
    18: "TPOFF64",
    19: "TLSGD",
    20: "TLSLD",
    21: "DTPOFF32",
    22: "GOTTPOFF",
    23: "TPOFF32",
    24: "PC64",
    25: "GOTOFF64",
    26: "GOTPC32",
    27: "GOT64",
    28: "GOTPCREL64",
    29: "GOTPC64",
    30: "GOTPLT64",
    31: "PLTOFF64",
    32: "SIZE32",
    33: "SIZE64",
    34: "GOTPC32_TLSDESC",
    35: "TLSDESC_CALL",
    36: "TLSDESC",
    37: "IRELATIVE",
    41: "GOTPCRELX",
    42: "REX_GOTPCRELX",
}
"""Relocation type -> name without its prefix R_X86_64_; type 0 (NONE) asks for nothing and is passed over."""

RELOCATION_TYPES = {name: number for number, name in RELOCATION_NAMES.items()}

R_GLOB_DAT, R_RELATIVE = 6, 8

LINKED_RELOCATIONS = frozenset(
    [
        "64",
        "PC32",
        "COPY",
        "GLOB_DAT",
        "JUMP_SLOT",
        "RELATIVE",
        "32",
        "DTPMOD64",
        "DTPOFF64",
        "TPOFF64",
        "PC64",
        "SIZE32",
        "SIZE64",
        "TLSDESC",
        "IRELATIVE",
    ]
)
"""What a link editor leaves in a program or shared object for the loader."""

OBJECT_RELOCATIONS = frozenset(RELOCATION_TYPES) - frozenset(
    ("COPY", "GLOB_DAT", "JUMP_SLOT", "RELATIVE", "IRELATIVE", "TLSDESC")
)
"""What a compiler or assembler leaves in a relocatable object."""

RELOCATION_BYTES = dict.fromkeys(RELOCATION_TYPES, 8) | {
    "TLSDESC": 16,
    "COPY": 0,
    "TLSDESC_CALL": 0,
    "16": 2,
    "PC16": 2,
    "8": 1,
    "PC8": 1,
}
for _name in [
    "PC32",
    "GOT32",
    "PLT32",
    "GOTPCREL",
    "32",
    "32S",
    "TLSGD",
    "TLSLD",
    "DTPOFF32",
    "GOTTPOFF",
    "TPOFF32",
    "GOTPC32",
    "SIZE32",
    "GOTPC32_TLSDESC",
    "GOTPCRELX",
    "REX_GOTPCRELX",
]:
    RELOCATION_BYTES[_name] = 4
"""How many bytes each relocation writes; COPY writes as many as its symbol has."""

LINKED_TYPES = {
    number: (name, RELOCATION_BYTES[name])
    for number, name in RELOCATION_NAMES.items()
    if name in LINKED_RELOCATIONS
}
"""The number of each of `LINKED_RELOCATIONS` -> its name, and how many bytes it writes."""

VISIBILITIES = ("default", "internal", "hidden", "protected")
BINDINGS = {0: "local", 1: "global", 2: "weak", 10: "unique"}
SYMBOL_KINDS = {0: "none", 1: "object", 2: "function", 3: "section", 4: "file", 6: "tls", 10: "ifunc"}

SYMBOL_INFOS = tuple(
    (SYMBOL_KINDS.get(info & 15, "other"), BINDINGS.get(info >> 4, "other")) for info in range(256)
)
"""Kind and binding of a symbol, by the byte that holds both."""
