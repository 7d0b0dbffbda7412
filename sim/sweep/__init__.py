"""Many runs of one scenario, each in a process of its own: what a run does to its process happens to no other.

`points` says what is run, `executor` runs it, `worker` is the other side of the executor.  Leaves out designs other
than a list of seeds, clusters, and a store of results.
"""
