"""Webhooks: what a receiver sees, and what it may do (SPEC 5)."""
