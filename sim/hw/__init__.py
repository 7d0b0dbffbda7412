"""The machine that the hypervisor runs on: processors, frames, page tables, disk, NIC, firmware and TPM slot.

Import the parts by their full path, for example `from sim.hw.board import Board`.
"""
