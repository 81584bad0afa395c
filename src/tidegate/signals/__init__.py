"""Signals: what operators see of the engine from outside: traces, metrics, health."""
