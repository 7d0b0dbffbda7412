"""The scheduling policies that ship; each is one module behind the protocol of `sim.kernel.sched.policy`."""
