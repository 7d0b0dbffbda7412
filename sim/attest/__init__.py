"""The verifier of a host's boot: it sees only what travels on the wire."""
