"""Declarative what-ifs: a TOML file or a value, built into a machine, run, and summed up in a RunResult."""
