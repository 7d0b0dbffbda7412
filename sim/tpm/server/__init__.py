"""The doors of the TPM: a TCP server that speaks the protocols of swtpm and of the TCG reference simulator (mssim)."""
