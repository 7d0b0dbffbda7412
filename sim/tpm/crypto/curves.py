"""The numbers of the elliptic curves that the TPM knows.

Models: short Weierstrass curves y**2 = x**3 + a*x + b over a prime field, with a base point of prime order n.
Leaves out: the arithmetic (`sim.tpm.crypto.ecc`).
Sources: FIPS 186-5 and SP 800-186 (NIST curves); ISO/IEC 15946-5 (BN curves); GM/T 0003.5 (SM2); TCG Algorithm
Registry.  All are equal to what swtpm 0.7.1 answers to ECC_Parameters.
"""

from __future__ import annotations

from attrs import frozen

from sim.tpm.constants import TPM_ALG, TPM_ECC

__all__ = ["CURVES", "Curve"]


@frozen(kw_only=True)
class Curve:
    """A curve; `kdf_hash` is the hash of its default key derivation, None where it has none."""

    curve_id: int
    bits: int
    p: int
    a: int
    b: int
    gx: int
    gy: int
    n: int
    kdf_hash: int | None

    @property
    def size(self) -> int:
        """Bytes of a coordinate, and of a private scalar."""
        return (self.bits + 7) // 8

    def encode(self, number: int) -> bytes:
        """Return a coordinate or scalar in its full width."""
        return number.to_bytes(self.size, "big")


def _curve(curve_id: TPM_ECC, bits: int, kdf_hash: TPM_ALG | None, numbers: str) -> Curve:
    p, a, b, gx, gy, n = (int(text, 16) for text in numbers.split())
    return Curve(
        curve_id=curve_id.value,
        bits=bits,
        p=p,
        a=a,
        b=b,
        gx=gx,
        gy=gy,
        n=n,
        kdf_hash=kdf_hash.value if kdf_hash is not None else None,
    )


_ALL = (
    _curve(
        TPM_ECC.NIST_P192,
        192,
        TPM_ALG.SHA256,
        "fffffffffffffffffffffffffffffffeffffffffffffffff "
        "fffffffffffffffffffffffffffffffefffffffffffffffc "
        "64210519e59c80e70fa7e9ab72243049feb8deecc146b9b1 "
        "188da80eb03090f67cbf20eb43a18800f4ff0afd82ff1012 "
        "7192b95ffc8da78631011ed6b24cdd573f977a11e794811 "
        "ffffffffffffffffffffffff99def836146bc9b1b4d22831",
    ),
    _curve(
        TPM_ECC.NIST_P224,
        224,
        TPM_ALG.SHA256,
        "ffffffffffffffffffffffffffffffff000000000000000000000001 "
        "fffffffffffffffffffffffffffffffefffffffffffffffffffffffe "
        "b4050a850c04b3abf54132565044b0b7d7bfd8ba270b39432355ffb4 "
        "b70e0cbd6bb4bf7f321390b94a03c1d356c21122343280d6115c1d21 "
        "bd376388b5f723fb4c22dfe6cd4375a05a07476444d5819985007e34 "
        "ffffffffffffffffffffffffffff16a2e0b8f03e13dd29455c5c2a3d",
    ),
    _curve(
        TPM_ECC.NIST_P256,
        256,
        TPM_ALG.SHA256,
        "ffffffff00000001000000000000000000000000ffffffffffffffffffffffff "
        "ffffffff00000001000000000000000000000000fffffffffffffffffffffffc "
        "5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604b "
        "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296 "
        "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5 "
        "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551",
    ),
    _curve(
        TPM_ECC.NIST_P384,
        384,
        TPM_ALG.SHA384,
        "fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffeffffffff0000000000000000"
        "ffffffff "
        "fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffeffffffff0000000000000000"
        "fffffffc "
        "b3312fa7e23ee7e4988e056be3f82d19181d9c6efe8141120314088f5013875ac656398d8a2ed19d2a85c8ed"
        "d3ec2aef "
        "aa87ca22be8b05378eb1c71ef320ad746e1d3b628ba79b9859f741e082542a385502f25dbf55296c3a545e38"
        "72760ab7 "
        "3617de4a96262c6f5d9e98bf9292dc29f8f41dbd289a147ce9da3113b5f0b8c00a60b1ce1d7e819d7a431d7c"
        "90ea0e5f "
        "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196a"
        "ccc52973",
    ),
    _curve(
        TPM_ECC.NIST_P521,
        521,
        TPM_ALG.SHA512,
        "1fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"
        "fffffffffffffffffffffffffffffffffffffffffff "
        "1fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"
        "ffffffffffffffffffffffffffffffffffffffffffc "
        "51953eb9618e1c9a1f929a21a0b68540eea2da725b99b315f3b8b489918ef109e156193951ec7e937b1652c0"
        "bd3bb1bf073573df883d2c34f1ef451fd46b503f00 "
        "c6858e06b70404e9cd9e3ecb662395b4429c648139053fb521f828af606b4d3dbaa14b5e77efe75928fe1dc1"
        "27a2ffa8de3348b3c1856a429bf97e7e31c2e5bd66 "
        "11839296a789a3bc0045c8a5fb42c7d1bd998f54449579b446817afbd17273e662c97ee72995ef42640c550b"
        "9013fad0761353c7086a272c24088be94769fd16650 "
        "1fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffa51868783bf2f966b7fcc0"
        "148f709a5d03bb5c9b8899c47aebb6fb71e91386409",
    ),
    _curve(
        TPM_ECC.BN_P256,
        256,
        None,
        "fffffffffffcf0cd46e5f25eee71a49f0cdc65fb12980a82d3292ddbaed33013 "
        "0 "
        "3 "
        "1 "
        "2 "
        "fffffffffffcf0cd46e5f25eee71a49e0cdc65fb1299921af62d536cd10b500d",
    ),
    _curve(
        TPM_ECC.BN_P638,
        638,
        None,
        "23fffffdc000000d7fffffb8000001d3fffff942d000165e3fff94870000d52ffffdd0e00008de55c0008652"
        "0021e55bfffff51ffff4eb800000004c80015acdffffffffffffece00000000000000067 "
        "0 "
        "101 "
        "23fffffdc000000d7fffffb8000001d3fffff942d000165e3fff94870000d52ffffdd0e00008de55c0008652"
        "0021e55bfffff51ffff4eb800000004c80015acdffffffffffffece00000000000000066 "
        "10 "
        "23fffffdc000000d7fffffb8000001d3fffff942d000165e3fff94870000d52ffffdd0e00008de5560008655"
        "0021e555fffff54ffff4eac000000049800154d9ffffffffffffeda00000000000000061",
    ),
    _curve(
        TPM_ECC.SM2_P256,
        256,
        TPM_ALG.SM3_256,
        "fffffffeffffffffffffffffffffffffffffffff00000000ffffffffffffffff "
        "fffffffeffffffffffffffffffffffffffffffff00000000fffffffffffffffc "
        "28e9fa9e9d9f5e344d5a9e4bcf6509a7f39789f515ab8f92ddbcbd414d940e93 "
        "32c4ae2c1f1981195f9904466a39c9948fe30bbff2660be1715a4589334c74c7 "
        "bc3736a2f4f6779c59bdcee36b692153d0a9877cc62a474002df32e52139f0a0 "
        "fffffffeffffffffffffffffffffffff7203df6b21c6052b53bbf40939d54123",
    ),
)

CURVES: dict[int, Curve] = {curve.curve_id: curve for curve in _ALL}
"""Every curve, by its identifier."""
