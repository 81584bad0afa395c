"""The rivals' scripts; each runs in an environment of its own (`benchmarks.peers`)."""
