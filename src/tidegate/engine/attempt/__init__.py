"""One attempt at a run: pages are fetched, delivered and entered in the ledger."""
