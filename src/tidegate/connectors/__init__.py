"""Connectors: third-party platforms, one file (or one YAML) each."""
