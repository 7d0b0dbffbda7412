"""The cryptography of the TPM as pure functions of bytes and integers; no function here keeps or draws anything.

Models: key derivation (`kdf`), block ciphers and their modes (`symmetric`), RSA (`rsa`), elliptic curves (`ecc`).
Leaves out: which keys and commands use them (`sim.tpm.keys`, `sim.tpm.commands`), and resistance to side channels.
"""
