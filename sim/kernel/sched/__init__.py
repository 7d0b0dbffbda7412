"""The CPU scheduler of the VMkernel."""
