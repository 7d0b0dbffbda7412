"""A TPM 2.0: bytes in, bytes out; PCRs, localities, keys, quotes, and the TCG event log."""
