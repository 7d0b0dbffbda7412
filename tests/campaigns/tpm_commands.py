"""Random TPM commands made from the command tables: right in form, and fed with what earlier answers gave.

`Maker.command()` returns a pair of byte strings, one for each of two TPMs that run side by side: where a parameter must
come from an answer (a private area, a ticket, a name), each TPM gets its own.  `Maker.learn` takes the two answers.
With one TPM both halves are the same.
"""

import random
import struct
from collections import defaultdict, deque
from hashlib import sha256

import attrs
from cryptography.hazmat.primitives.asymmetric import ec

from sim.tpm.codec import (
    Empty,
    FixedBytes,
    ListOf,
    Number,
    Select,
    Sized,
    SizedBytes,
    WireError,
    _StructureCodec,
)
from sim.tpm.constants import TPM_CC
from sim.tpm.requests import HandleSet
from sim.tpm.tables import COMMANDS

OWNER, NULL, LOCKOUT, ENDORSEMENT, PLATFORM = 0x40000001, 0x40000007, 0x4000000A, 0x4000000B, 0x4000000C
HIERARCHIES = (OWNER, OWNER, NULL, ENDORSEMENT, PLATFORM, LOCKOUT)
TRANSIENTS = (0x80000000, 0x80000000, 0x80000001, 0x80000002)
POLICY_SESSIONS = (0x03000000, 0x03000001)
INDICES = (0x01500001, 0x01500002, 0x01500003, 0x01500004)
PERSISTENTS = (0x81000001, 0x81800001)
PCRS = (0, 7, 16, 23)
NOT_REMEMBERED = {TPM_CC.LoadExternal, TPM_CC.FlushContext, TPM_CC.NV_DefineSpace, TPM_CC.HierarchyChangeAuth}
REMEMBERED = 12
REMEMBERED_SHARE = 0.75
NUMBERS = {
    "B": (0, 0, 1, 1, 2, 3),
    "H": (0, 1, 4, 8, 16, 32),
    "I": (0, 0, 1, 2, 8, 0x100, 0x20000),
    "Q": (0, 1, 8, 1 << 40),
}
CODES_RARELY = {
    TPM_CC.Clear,
    TPM_CC.ChangeEPS,
    TPM_CC.ChangePPS,
    TPM_CC.HierarchyControl,
    TPM_CC.PCR_Allocate,
    TPM_CC.ClearControl,
    TPM_CC.HierarchyChangeAuth,
    TPM_CC.SetPrimaryPolicy,
    TPM_CC.Shutdown,
    TPM_CC.Startup,
    TPM_CC.DictionaryAttackParameters,
    TPM_CC.ClockSet,
    TPM_CC.PP_Commands,
    TPM_CC.PCR_SetAuthValue,
    TPM_CC.PCR_SetAuthPolicy,
    TPM_CC.NV_GlobalWriteLock,
    TPM_CC.SetCommandCodeAuditStatus,
}
CODES_OFTEN = {
    TPM_CC.CreatePrimary,
    TPM_CC.Create,
    TPM_CC.Load,
    TPM_CC.StartAuthSession,
    TPM_CC.NV_DefineSpace,
    TPM_CC.NV_Write,
    TPM_CC.LoadExternal,
}


def sized(content):
    return struct.pack(">H", len(content)) + content


def public_area(kind, attributes, parameters, unique, policy=b"", name_alg=0x0B):
    area = struct.pack(">HHI", kind, name_alg, attributes) + struct.pack(">H", len(policy)) + policy
    return area + bytes.fromhex(parameters) + bytes.fromhex(unique)


TEMPLATES = (
    public_area(0x23, 0x00030072, "000600800043001000030010", "00000000"),
    public_area(0x23, 0x00040072, "00100018000b00030010", "00000000"),
    public_area(0x23, 0x00050072, "00100018000b00030010", "00000000"),
    public_area(0x23, 0x00060072, "0010001000030010", "00000000"),
    public_area(0x23, 0x00020072, "0010001000040010", "00000000"),
    public_area(0x23, 0x00040072, "0010001a000b000000030010", "00000000"),
    public_area(0x23, 0x00060060, "0010001000030010", "00000000"),
    public_area(0x08, 0x00040072, "0005000b", "0000"),
    public_area(0x08, 0x00000052, "0010", "0000"),
    public_area(0x25, 0x00060072, "000600800043", "0000"),
    public_area(0x25, 0x00060072, "000600800010", "0000"),
    public_area(0x25, 0x00030072, "000600800043", "0000"),
    public_area(0x25, 0x00060072, "000601000040", "0000", name_alg=0x0C),
    public_area(0x01, 0x00060072, "00100010080000000000", "0000"),
    public_area(0x01, 0x00030072, "0006008000430010080000000000", "0000"),
)
RSA_TEMPLATES = TEMPLATES[-2:]
SEED, KEY = bytes(range(32)), bytes(range(16))
POINT = ec.derive_private_key(5, ec.SECP256R1()).public_key().public_numbers()


def sensitive(kind, seed, key):
    return struct.pack(">H", kind) + sized(b"") + sized(seed) + sized(key)


def external(kind, attributes, parameters):
    """A symmetric key or an HMAC key with its secret part, whose unique field binds both."""
    unique = sha256(SEED + KEY).hexdigest()
    return sensitive(kind, SEED, KEY), public_area(kind, attributes, parameters, "0020" + unique)


EXTERNALS = (
    external(0x08, 0x00040040, "0005000b"),
    external(0x08, 0x00000040, "0010"),
    external(0x25, 0x00060040, "000600800043"),
    external(0x25, 0x00060040, "000600800010"),
    (
        sensitive(0x23, b"", (5).to_bytes(32, "big")),
        public_area(0x23, 0x00060040, "0010001000030010", f"0020{POINT.x:064x}0020{POINT.y:064x}"),
    ),
    (b"", public_area(0x23, 0x00060040, "0010001000030010", f"0020{POINT.x:064x}0020{POINT.y:064x}")),
)
DIGEST = "0020" + "11" * 32
NO_TICKET = "8024400000070000"
AES_BLOCK = "0010" + "22" * 16
FIXED = {
    TPM_CC.Sign: ([DIGEST], ["0010", "0018000b", "0005000b"], [NO_TICKET]),
    TPM_CC.Quote: (["00056e6f6e6365"], ["0010", "0018000b"], ["00000001000b03810000"]),
    TPM_CC.Certify: (["0000"], ["0010", "0018000b"]),
    TPM_CC.GetTime: (["0000"], ["0010", "0018000b"]),
    TPM_CC.NV_Certify: (["0000"], ["0010", "0018000b"], ["0008", "0000"], ["0000"]),
    TPM_CC.EncryptDecrypt: (["00", "01"], ["0043", "0010"], [AES_BLOCK], [AES_BLOCK]),
    TPM_CC.EncryptDecrypt2: ([AES_BLOCK], ["00", "01"], ["0043", "0010"], [AES_BLOCK]),
    TPM_CC.HMAC: (["000361 62 63"], ["000b", "0010"]),
    TPM_CC.HMAC_Start: (["0000", "00027077"], ["000b", "0010"]),
    TPM_CC.HashSequenceStart: (["0000"], ["000b", "0010"]),
    TPM_CC.SequenceUpdate: (["0003616263"],),
    TPM_CC.SequenceComplete: (["0003616263"], ["40000007", "40000001"]),
    TPM_CC.EventSequenceComplete: (["0003616263"],),
    TPM_CC.Commit: (["0000"], ["0000"], ["0000"]),
    TPM_CC.RSA_Encrypt: (["0003616263"], ["0015", "0017000b"], ["0000"]),
    TPM_CC.PolicyPCR: (["0000"], ["00000001000b03810000"]),
    TPM_CC.PolicySecret: (["0000"], ["0000"], ["0000"], ["00000000", "00000010", "fffffff0"]),
    TPM_CC.PolicyOR: (["00000002" + DIGEST + "0020" + "00" * 32],),
    TPM_CC.PolicyCommandCode: (["0000015e", "0000014b", "00000134"],),
    TPM_CC.PolicyNameHash: ([DIGEST],),
    TPM_CC.PolicyCpHash: ([DIGEST],),
    TPM_CC.PolicyTemplate: ([DIGEST],),
    TPM_CC.PolicyNV: (["00080000000000000000"], ["0000"], ["0000", "0001", "0005"]),
    TPM_CC.PolicyCounterTimer: (["00080000000000000000"], ["0000"], ["0001", "0005", "0000"]),
    TPM_CC.Duplicate: (["0000"], ["0010"]),
    TPM_CC.NV_Extend: (["0003616263"],),
    TPM_CC.Load: (),
    TPM_CC.ClockSet: (["0000000000100000"],),
}


class Maker:
    """Makes commands from a seeded generator; `rsa_share` says how often an RSA key may be asked for."""

    def __init__(self, seed, *, rsa_share=0.02, codes=None):
        self.random = random.Random(seed)
        self.tpm = None
        """The TPM whose handles are used; set it when there is a new one."""
        self.rsa_share = rsa_share
        codes = sorted(codes if codes is not None else COMMANDS)
        self.codes = [
            code
            for code in codes
            for _ in range(1 if code in CODES_RARELY else 12 if code in CODES_OFTEN else 4)
        ]
        self.known = defaultdict(lambda: deque(maxlen=REMEMBERED))

    def command(self, code=None):
        """Return one command, for each of the two TPMs."""
        spec = COMMANDS[code if code is not None else self.random.choice(self.codes)]
        handles = b"".join(struct.pack(">I", self.handle(each)) for each in spec.handles)
        sessions = self.sessions(spec)
        parameters = [self.parameter(spec, codec, number) for number, codec in enumerate(spec.parameters)]
        tag = 0x8002 if sessions is not None else 0x8001
        area = b"" if sessions is None else struct.pack(">I", len(sessions)) + sessions
        return tuple(
            packet(tag, spec.code, handles + area + b"".join(part[side] for part in parameters))
            for side in (0, 1)
        )

    def learn(self, command, answers):
        """Keep the results of two answers to a command, if both are good."""
        spec = COMMANDS[int.from_bytes(command[6:10], "big")]
        if any(int.from_bytes(answer[6:10], "big") for answer in answers):
            return
        pieces = [results_of(spec, answer) for answer in answers]
        for codec, first, second in zip(spec.results, *pieces, strict=True):
            self.known[kind_of(codec)].append((first, second))

    def handle(self, declared):
        """A handle of the declared type that may exist; now and then any other."""
        if self.random.random() < 0.03:
            return self.random.choice((0, 24, 0x40000009, 0x80000005, 0x01500009, 0x02000000, 0x81000009))
        there = self.there()
        usual = (*HIERARCHIES, *TRANSIENTS, *POLICY_SESSIONS, *INDICES, *PERSISTENTS, *PCRS)
        pool = [handle for handle in there if handle in declared.allowed]
        if not pool or self.random.random() < 0.05:
            pool = [handle for handle in usual if handle in declared.allowed]
        return self.random.choice(pool) if pool else 0

    def there(self):
        """The handles of everything that the TPM has now."""
        tpm = self.tpm
        found = (*HIERARCHIES, *PCRS)
        if tpm is not None:
            found += (*tpm.objects, *tpm.objects, *tpm.persistent, *tpm.nv, *tpm.nv, *tpm.sessions.loaded)
        return found

    def sessions(self, spec):
        """The session area: what the command needs, mostly as empty passwords."""
        wanted = spec.authorised_count
        if self.random.random() < 0.03:
            wanted = self.random.randrange(4)
        if not wanted:
            return None
        area = b""
        for _ in range(wanted):
            handle = 0x40000009 if self.random.random() < 0.93 else self.random.choice(POLICY_SESSIONS)
            password = self.random.choice((b"",) * 20 + (b"pw", b"pw", b"\0"))
            area += struct.pack(">IHBH", handle, 0, self.random.choice((0, 1, 1)), len(password)) + password
        return area

    def parameter(self, spec, codec, number):
        """The bytes of one parameter, for each of the two TPMs."""
        remembered = self.known.get(kind_of(codec))
        if remembered and spec.code not in NOT_REMEMBERED and self.random.random() < REMEMBERED_SHARE:
            return self.random.choice(remembered)
        special = self.special(spec, codec, number)
        content = special if special is not None else self.encoded(codec)
        return content, content

    def special(self, spec, codec, number):
        """Parameters that blind choice would nearly never get right."""
        code = spec.code
        if code in (TPM_CC.CreatePrimary, TPM_CC.Create, TPM_CC.CreateLoaded) and number == 1:
            return sized(self.template())
        if code in (TPM_CC.CreatePrimary, TPM_CC.Create, TPM_CC.CreateLoaded) and number == 0:
            auth, data = (
                self.random.choice((b"",) * 9 + (b"pw",)),
                self.random.choice((b"", b"", b"", b"sealed")),
            )
            return sized(sized(auth) + sized(data))
        if code == TPM_CC.NV_DefineSpace and number == 1:
            return sized(self.nv_public())
        if code == TPM_CC.StartAuthSession and number in (1, 2, 3):
            return (sized(b""), bytes([self.random.choice((1, 1, 3, 0))]), b"\0\x10")[number - 1]
        if code == TPM_CC.StartAuthSession and number == 0:
            return sized(b"n" * 16)
        if code in (TPM_CC.HierarchyChangeAuth, TPM_CC.NV_ChangeAuth, TPM_CC.ObjectChangeAuth):
            return sized(self.random.choice((b"",) * 9 + (b"pw",)))
        if code == TPM_CC.NV_DefineSpace:
            return sized(self.random.choice((b"",) * 9 + (b"pw",)))
        if code == TPM_CC.NV_Write and number == 0:
            return sized(self.random.choice((bytes(8), b"12345678", b"1234")))
        if (
            code in (TPM_CC.NV_Write, TPM_CC.NV_Read, TPM_CC.NV_Certify)
            and spec.parameters[number].code == "H"
        ):
            return struct.pack(">H", self.random.choice((0, 0, 0, 4, 8)))
        if code == TPM_CC.FlushContext:
            there = [handle for handle in self.there() if handle >> 24 in (2, 3, 0x80)]
            return struct.pack(">I", self.random.choice(there or TRANSIENTS))
        if code == TPM_CC.LoadExternal:
            return self.external(number)
        fixed = FIXED.get(code)
        if fixed is not None and self.random.random() < 0.8:
            return bytes.fromhex(self.random.choice(fixed[number])) if number < len(fixed) else None
        if code == TPM_CC.EvictControl:
            return struct.pack(">I", self.random.choice(PERSISTENTS))
        return None

    def external(self, number):
        """One of the parameters of LoadExternal, which must fit each other."""
        if number == 0:
            self.chosen = self.random.choice(EXTERNALS)
        if number < 2:
            return sized(self.chosen[number])
        return struct.pack(">I", self.random.choice((NULL, NULL, NULL, OWNER)))

    def template(self):
        if self.random.random() < self.rsa_share:
            return self.random.choice(RSA_TEMPLATES)
        return self.random.choice(TEMPLATES[:-2])

    def nv_public(self):
        attributes, size = self.random.choice(
            (
                (0x00060006, 8),
                (0x00020002, 16),
                (0x00060016, 8),
                (0x00060026, 8),
                (0x00060046, 32),
                (0x02040004, 8),
            )
        )
        return (
            struct.pack(">IHI", self.random.choice(INDICES), 0x0B, attributes)
            + sized(b"")
            + struct.pack(">H", size)
        )

    def encoded(self, codec):
        """Bytes of a random value of a codec; empty where none is found."""
        try:
            return self.piece(codec)
        except (WireError, KeyError, struct.error):
            return b""

    def piece(self, codec):
        match codec:
            case Number():
                return codec.encode(self.number(codec))
            case Empty():
                return b""
            case FixedBytes():
                return self.random.randbytes(codec.size)
            case SizedBytes():
                return codec._pack(len(content := self.content(codec))) + content
            case Sized():
                return sized(self.piece(codec.inner))
            case ListOf():
                count = self.random.choice((0, 1, 1, 2, min(3, codec.count_max)))
                return struct.pack(">I", count) + b"".join(self.piece(codec.inner) for _ in range(count))
            case _StructureCodec():
                return self.structure(codec)
        return b""

    def number(self, codec):
        if codec.allowed is None:
            return self.random.choice(NUMBERS[codec.code]) & ~codec.reserved
        return self.random.choice(sorted(members(codec.allowed)) or [0])

    def content(self, codec):
        sizes = [size for size in (0, 4, 16, 20, 32, 32, 48) if codec.size_min <= size <= codec.size_max]
        if self.random.random() < 0.05:
            sizes = [codec.size_max]
        return self.random.randbytes(self.random.choice(sizes or [codec.size_min]))

    def structure(self, codec):
        """Bytes of a structure, its unions chosen by their selectors."""
        values, parts = {}, []
        for field in attrs.fields(codec.cls):
            declared = field.metadata["wire"]
            if isinstance(declared, Select):
                parts.append(self.piece(declared.branch(values[declared.selector])))
            elif isinstance(declared, Number):
                values[field.name] = self.number(declared)
                parts.append(declared.encode(values[field.name]))
            else:
                parts.append(self.piece(declared))
        return b"".join(parts)


def members(allowed):
    """The values that a container of allowed numbers has, a few of each range."""
    if isinstance(allowed, HandleSet):
        return {value for part in allowed.parts for value in members(part)}
    if isinstance(allowed, range):
        return {*allowed[:4]}
    return {int(value) for value in allowed}


def packet(tag, code, body):
    return struct.pack(">HII", tag, 10 + len(body), code) + body


def kind_of(codec):
    """What results and parameters have in common: the codec, or its structure."""
    return codec.cls if isinstance(codec, _StructureCodec) else id(codec)


def results_of(spec, answer):
    """The bytes of each result in a good answer."""
    at = 14 if spec.returns_handle else 10
    end = len(answer)
    if answer[:2] == b"\x80\x02":
        end = at + 4 + int.from_bytes(answer[at : at + 4], "big")
        at += 4
    pieces = []
    for codec in spec.results:
        _, after = codec.decode(answer, at, end)
        pieces.append(answer[at:after])
        at = after
    return pieces
