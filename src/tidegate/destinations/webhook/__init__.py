"""Webhooks: batches are posted in order, signed as Standard Webhooks says, until the receiver acknowledges them (SPEC 5)."""
