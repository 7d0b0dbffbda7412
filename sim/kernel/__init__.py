"""The VMkernel: worlds, VMs, scheduling, module loading, placement, and the closed management interface."""
