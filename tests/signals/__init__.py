"""Traces, metrics, health, logs and masks."""
