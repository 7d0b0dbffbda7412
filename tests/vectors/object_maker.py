"""Seeded random templates and key pairs, mostly right, for the differential tests of objects."""

import random
import struct

from sim.tpm.crypto import ecc, rsa
from sim.tpm.hashing import hash_bytes

from .swtpm_peer import sized

RSA, KEYEDHASH, ECC, SYMCIPHER = 0x01, 0x08, 0x23, 0x25
SIZES = {0x04: 20, 0x0B: 32, 0x0C: 48, 0x0D: 64, 0x10: 0}
SYMMETRIC = "0010 000600800043 000601000043 000600800010 000600800042 002600800043 000300800043 00060080003f 000600c00043 00070080"
RSA_SCHEMES = "0010 0014000b 00160004 0017000b 0015 0018000b 00160010"
ECC_SCHEMES = "0010 0018000b 00180004 0019000b 001a000b0000 001d000b 001b000b 001c000b 0014000b"
HASH_SCHEMES = (
    "0010 0005000b 00050004 0005000d 000a000b0022 000a000b0020 000a000b0010 000a000b0007 0018 00050010"
)
ATTRIBUTES = [0x72, 0x30072, 0x50072, 0x40072, 0x20072, 0x60072, 0x12, 0x52, 0x92, 0x492, 0x30472, 0x60020]
ATTRIBUTES += [0x60820, 0x20060, 0x40060, 0x30060, 0x40, 0x60040, 0x60000, 0x40040, 0x20040, 0x30040, 0x50040]
ATTRIBUTES += [0x32, 0x30052, 0x20052, 0x40052, 0x30840, 0x30860, 0x40032]
LOOSE = [0x40, 0x60040, 0x40040, 0x20040, 0x60000, 0x440, 0x40440, 0x20060, 0x60]
FLIPPED = (1, 2, 4, 5, 6, 7, 10, 11, 16, 17, 18, 19)
CURVES = [3] * 6 + [1, 2, 4, 5, 0x10, 0x11, 0x20]


class ObjectMaker:
    """Makes areas from a seeded generator."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.one_of = lambda *values: self.random.choice(values)
        self.primes = {bits: rsa.generate_primes(b"a key for both", bits) for bits in (1024, 2048)}

    def scheme(self, texts, *likely):
        return bytes.fromhex(self.random.choice(texts.split() + list(likely) * 4))

    def head(self, kind, attributes, flip):
        if self.random.random() < flip:
            attributes ^= 1 << self.random.choice(FLIPPED)
        alg = self.one_of(*[0x0B] * 6, *SIZES)
        policy = self.one_of(b"", b"", b"", b"", b"p" * SIZES[alg], b"p" * 33)
        return alg, struct.pack(">HHI", kind, alg, attributes) + sized(policy)

    def parameters(self, kind, bits=1024, curve=3):
        if kind == RSA:
            exponent = self.one_of(*[0] * 9, 65537, 3, 65539, 65536, 17)
            schemes = self.scheme(SYMMETRIC, "0010", "000600800043") + self.scheme(RSA_SCHEMES, "0010")
            return schemes + struct.pack(">HI", bits, exponent)
        if kind == ECC:
            schemes = self.scheme(SYMMETRIC, "0010", "000600800043") + self.scheme(
                ECC_SCHEMES, "0010", "0018000b"
            )
            return schemes + struct.pack(">H", curve) + self.scheme("0010 0022000b 0020000b", "0010", "0010")
        if kind == KEYEDHASH:
            return self.scheme(HASH_SCHEMES, "0010", "0005000b", "000a000b0022")
        return self.scheme(SYMMETRIC, "000600800043", "000600800010")

    def template(self, kinds=(RSA, ECC, ECC, KEYEDHASH, KEYEDHASH, SYMCIPHER, SYMCIPHER)):
        kind = self.one_of(*kinds)
        _, head = self.head(kind, self.one_of(*ATTRIBUTES), 0.4)
        area = head + self.parameters(kind, self.one_of(*[1024] * 8, 2048, 512), self.one_of(*CURVES, 6))
        return area + bytes(4 if kind == ECC else 2)

    def secrets(self):
        auth = self.one_of(b"", b"", b"", b"pw", b"a" * 33, b"a" * 20 + bytes(20))
        data = self.one_of(*[b""] * 5, b"data", b"k" * 16, b"k" * 32, b"k" * 64, b"k" * 65, b"k" * 128)
        return sized(sized(auth) + sized(data))

    def pair(self):
        """Return a public and a sensitive area that mostly belong together."""
        kind = self.one_of(RSA, ECC, KEYEDHASH, SYMCIPHER)
        alg, head = self.head(kind, self.one_of(*LOOSE), 0.25)
        seed = b"s" * self.one_of(*[SIZES[alg]] * 5, 0, 16, 32, 64)
        bits, curve = self.one_of(1024, 1024, 1024, 2048), self.random.choice(CURVES)
        unique, secret = self.key(kind, alg, seed, bits, curve)
        parts = [self.maybe_changed(part) for part in unique]
        public = head + self.parameters(kind, bits, curve) + b"".join(map(sized, parts))
        auth = self.one_of(b"", b"", b"", b"pw", b"a" * 33, b"a" * 20 + bytes(20))
        named = kind if self.random.random() < 0.97 else self.one_of(RSA, ECC, KEYEDHASH, SYMCIPHER)
        secret = self.maybe_changed(secret)
        return public, struct.pack(">H", named) + sized(auth) + sized(seed) + sized(secret)

    def key(self, kind, alg, seed, bits, curve):
        if kind == RSA:
            p, q = self.primes[bits]
            return [(p * q).to_bytes(bits // 8, "big")], self.one_of(p, p, q).to_bytes(bits // 16, "big")
        if kind == ECC:
            numbers = ecc.CURVES[curve]
            scalar = self.random.randrange(1, numbers.n)
            x, y = ecc.public_point(numbers, scalar)
            return [numbers.encode(x), numbers.encode(y)], numbers.encode(scalar)
        if kind == KEYEDHASH:
            secret = self.one_of(b"data", b"k" * 32, b"k" * 128, b"k" * 65, b"")
        else:
            secret = self.one_of(*[b"k" * 16] * 4, b"k" * 32, b"k" * 15, bytes(range(16)), bytes(range(24)))
        return [hash_bytes(alg, seed + secret) if SIZES[alg] else b""], secret

    def maybe_changed(self, data):
        if not data or self.random.random() > 0.08:
            return data
        changes = (
            data[:-1],
            b"\0" + data,
            b"",
            bytes([data[0] ^ 1]) + data[1:],
            bytes([data[0] ^ 0x80]) + data[1:],
        )
        return self.one_of(*changes)
