"""The management plane: the host agent with its closed API, and vCenter."""
