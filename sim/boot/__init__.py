"""The boot chain: firmware, Secure Boot, boot loader, late launch; it ends in one `BootInfo` value.

Read `sim.boot.sequence` first: it is the order of everything.  Import from the modules themselves.
"""
