"""What every layer stands on and what knows no hardware: engine, chance, trace, metrics, units, facts.

Models nothing of a machine.  Leaves out wall-clock time, threads and files: those belong to the command line.
"""
