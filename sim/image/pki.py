"""The certificate authorities of a simulated world, made from its seed.

Models: one module root with three issuing authorities, whose identity means an acceptance level (VMwareCertified,
VMwareAccepted, PartnerSupported) and who issue code signers to providers; a Secure Boot authority for the firmware's
db with its boot loader signer, and the KEK and PK certificates above it; the keys that sign early modules, and the
authority that issued them and can revoke them.
CommunitySupported has no authority: nobody signs.

Leaves out: what real certificates of VMware look like, which is not published; the names here say "simulated".
Early-module keys are EC P-256 by default (trailer schema 3), since an RSA key takes a second to find; with
algorithm "rsa-2048" everything here is RSA, as on a real host (schema 1).

Sources: acceptance levels from VMware's documentation; the arrangement of authorities is this project's own.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from attrs import field, frozen

from sim.core.rng import Rng
from sim.image.issue import AUTHORITY_USAGE, CertificateSpec, Identity, Signer, issue
from sim.image.trust import EarlyKey, IssuerLevel, SignatureError, TrustStore

__all__ = ["EARLY_KEY_IDS", "LOADER_ROLE", "PROVIDERS", "EarlySigner", "Pki", "SignatureError", "TrustStore"]

PROVIDERS: dict[str, tuple[str, ...]] = {
    "certified": ("VMware",),
    "accepted": ("Broadcom", "Intel"),
    "partner": ("Intel", "Marvell", "Mellanox"),
}
"""Level -> providers who get a signer when the world is made; any other name can be asked for later."""

LOADER_ROLE = "loader"
EARLY_KEY_IDS = ("vmksim_esx80_k01", "vmksim_esx80_k02")

_TITLES = {"certified": "VMwareCertified", "accepted": "VMwareAccepted", "partner": "PartnerSupported"}
_OWNER = "VMware"
_EARLY_SCHEMAS = {"ec": 3, "rsa": 1}
_ROOT_AGE, _ROOT_LIFE = timedelta(days=3 * 365), timedelta(days=20 * 365)
_AUTHORITY_AGE, _AUTHORITY_LIFE = timedelta(days=2 * 365), timedelta(days=12 * 365)
_SIGNER_AGE, _SIGNER_LIFE = timedelta(days=365), timedelta(days=5 * 365)


@frozen(kw_only=True)
class EarlySigner:
    """An early-module key as the boot loader knows it, with its private half."""

    key: EarlyKey
    identity: Identity = field(repr=False)


@frozen(kw_only=True)
class Pki:
    """Every authority and signer of one world, and the trust store that its hosts hold."""

    rng: Rng = field(repr=False, eq=False)
    epoch: datetime
    algorithm: str
    root: Identity
    authorities: dict[str, Identity]
    signers: tuple[Signer, ...]
    uefi_authority: Identity
    loader_signer: Signer
    key_exchange: Identity
    platform: Identity
    early_authority: Identity
    early_signers: tuple[EarlySigner, ...]
    trust: TrustStore

    @classmethod
    def create(cls, rng: Rng, *, epoch: datetime, algorithm: str = "ec-p256") -> Pki:
        """Make all authorities and the usual signers; `epoch` is the simulated time at which they are in use."""
        desk = _Desk(rng=rng.child("pki"), epoch=epoch, algorithm=algorithm)
        root = desk.authority("root", "Module Root", path_length=1)
        authorities = {level: desk.authority(level, title, issuer=root) for level, title in _TITLES.items()}
        uefi = desk.authority("uefi", "UEFI Secure Boot CA")
        early_authority = desk.authority("early", "Early Module CA")
        early = tuple(desk.early(key_id, early_authority) for key_id in EARLY_KEY_IDS)
        return cls(
            rng=desk.rng,
            epoch=epoch,
            algorithm=algorithm,
            root=root,
            authorities=authorities,
            signers=tuple(
                desk.signer(level, name, authorities[level])
                for level, names in PROVIDERS.items()
                for name in names
            ),
            uefi_authority=uefi,
            loader_signer=desk.signer(LOADER_ROLE, _OWNER, uefi, in_chain=False),
            key_exchange=desk.authority("kek", "Key Exchange Key"),
            platform=desk.authority("pk", "Platform Key"),
            early_authority=early_authority,
            early_signers=early,
            trust=TrustStore(
                roots=(root.certificate_der,),
                issuers=tuple(
                    IssuerLevel(certificate_der=authority.certificate_der, level=level)
                    for level, authority in authorities.items()
                ),
                early_keys=tuple(signer.key for signer in early),
            ),
        )

    def signer(self, role: str, provider: str | None = None) -> Signer:
        """Return the signer of a provider at a level (or of the "loader"); unknown providers get one issued.

        Without a provider the first one of that level is meant.  The answer is the same at every call.
        """
        if role == LOADER_ROLE:
            return self.loader_signer
        if role not in self.authorities:
            raise ValueError(
                f"unknown role {role!r}, wanted one of {', '.join((*self.authorities, LOADER_ROLE))}"
            )
        for signer in self.signers:
            if signer.level == role and provider in (None, signer.provider):
                return signer
        assert provider is not None
        desk = _Desk(rng=self.rng, epoch=self.epoch, algorithm=self.algorithm)
        return desk.signer(role, provider, self.authorities[role])

    @property
    def uefi_db(self) -> tuple[bytes, ...]:
        """Certificates for the firmware's db variable."""
        return (self.uefi_authority.certificate_der,)


@frozen(kw_only=True)
class _Desk:
    """Issues the certificates of one world; every label draws from a stream of its own."""

    rng: Rng
    epoch: datetime
    algorithm: str

    def authority(
        self, label: str, title: str, *, issuer: Identity | None = None, path_length: int = 0
    ) -> Identity:
        age, life = (_ROOT_AGE, _ROOT_LIFE) if issuer is None else (_AUTHORITY_AGE, _AUTHORITY_LIFE)
        spec = CertificateSpec(
            organization=_OWNER,
            common_name=f"{title} (simulated)",
            not_before=self.epoch - age,
            not_after=self.epoch + life,
            is_authority=True,
            path_length=path_length,
            key_usage=AUTHORITY_USAGE,
            extended_usages=(),
        )
        return self._issue(f"authority/{label}", spec, issuer)

    def signer(self, level: str, provider: str, issuer: Identity, *, in_chain: bool = True) -> Signer:
        identity = self._issue(
            f"signer/{level}/{provider}", self._signer_spec(provider, f"{provider} code signing"), issuer
        )
        return Signer(
            certificate_der=identity.certificate_der,
            private_key_der=identity.private_key_der,
            provider=provider,
            level=level,
            chain=(issuer.certificate_der,) if in_chain else (),
        )

    def early(self, key_id: str, issuer: Identity) -> EarlySigner:
        spec = self._signer_spec(_OWNER, f"{key_id} early modules")
        identity = self._issue(f"early/{key_id}", spec, issuer)
        key = EarlyKey(
            key_id=key_id,
            schema=_EARLY_SCHEMAS[self.algorithm.partition("-")[0]],
            certificate_der=identity.certificate_der,
            authority_der=issuer.certificate_der,
        )
        return EarlySigner(key=key, identity=identity)

    def _signer_spec(self, organization: str, title: str) -> CertificateSpec:
        return CertificateSpec(
            organization=organization,
            common_name=f"{title} (simulated)",
            not_before=self.epoch - _SIGNER_AGE,
            not_after=self.epoch + _SIGNER_LIFE,
        )

    def _issue(self, label: str, spec: CertificateSpec, issuer: Identity | None) -> Identity:
        source = self.rng.child(label).stream("certificate")
        return issue(spec, source=source, issuer=issuer, algorithm=self.algorithm)
