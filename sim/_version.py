"""The version of the simulator: part of every result, because a digest is promised for one version only."""

__version__ = "0.1.0"
