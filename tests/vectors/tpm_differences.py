"""Where our answers may differ from swtpm's, each with its reason; everything else is a fault."""

from sim.tpm.constants import TPM_CC

OWN_BYTES = {
    TPM_CC.CreatePrimary: "each make derives its own keys from its own seeds",
    TPM_CC.Create: "new keys and seeds are random",
    TPM_CC.CreateLoaded: "likewise",
    TPM_CC.Load: "it names such a key",
    TPM_CC.ReadPublic: "it shows such a key",
    TPM_CC.StartAuthSession: "the nonce is random",
    TPM_CC.GetRandom: "random by intent",
    TPM_CC.ReadClock: "the clocks run apart: ours by simulated time",
    TPM_CC.GetTime: "likewise, and the signature is over it",
    TPM_CC.Quote: "signed with such a key, over such a clock",
    TPM_CC.Certify: "likewise",
    TPM_CC.CertifyCreation: "likewise",
    TPM_CC.NV_Certify: "likewise",
    TPM_CC.GetCommandAuditDigest: "likewise",
    TPM_CC.GetSessionAuditDigest: "likewise",
    TPM_CC.Sign: "signed with such a key; ours are deterministic",
    TPM_CC.ECDH_KeyGen: "the ephemeral key is random",
    TPM_CC.ECDH_ZGen: "with such a key",
    TPM_CC.EC_Ephemeral: "the ephemeral key is random",
    TPM_CC.Commit: "likewise",
    TPM_CC.ZGen_2Phase: "with such keys",
    TPM_CC.MakeCredential: "the seed is random",
    TPM_CC.ActivateCredential: "it opens such a credential",
    TPM_CC.Duplicate: "the seed is random",
    TPM_CC.Rewrap: "likewise",
    TPM_CC.Import: "likewise",
    TPM_CC.ObjectChangeAuth: "private areas have random initial vectors",
    TPM_CC.RSA_Encrypt: "the padding is random",
    TPM_CC.RSA_Decrypt: "with such a key",
    TPM_CC.EncryptDecrypt: "with a key that was created",
    TPM_CC.EncryptDecrypt2: "likewise",
    TPM_CC.HMAC: "likewise",
    TPM_CC.SequenceComplete: "of an HMAC with such a key, and its ticket",
    TPM_CC.ContextSave: "saved contexts have each make's own form",
    TPM_CC.Hash: "the ticket is bound to the hierarchy's proof",
    TPM_CC.VerifySignature: "likewise",
    TPM_CC.PolicySecret: "likewise",
    TPM_CC.PolicySigned: "likewise",
    TPM_CC.PolicyGetDigest: "a policy over the name of such a key",
    TPM_CC.GetTestResult: "the maker's own data",
    TPM_CC.GetCapability: "swtpm lists CertifyX509 and Camellia and TDES; clocks and counters of failures differ",
    TPM_CC.IncrementalSelfTest: "which algorithms still wait for their test is the maker's business",
}
"""Commands whose good answers may have other bytes."""

OWN_LENGTHS = {
    TPM_CC.ContextSave: "saved contexts have each make's own form",
    TPM_CC.GetCapability: "swtpm lists commands and algorithms that are left out here",
    TPM_CC.IncrementalSelfTest: "which algorithms still wait for their test is the maker's business",
    TPM_CC.GetTestResult: "the maker's own data",
    TPM_CC.ContextLoad: "likewise",
}
"""Commands whose good answers may have another length."""

CODES = {
    (TPM_CC.PolicyCounterTimer, 0x126, 0): "the clocks run apart: ours by simulated time",
    (TPM_CC.PolicyCounterTimer, 0, 0x126): "likewise",
    (TPM_CC.ClockSet, 0x1C4, 0): "likewise: swtpm's clock has passed the new time",
}
"""(command, swtpm's code, ours) that are accepted; from there on the two are in different states."""
