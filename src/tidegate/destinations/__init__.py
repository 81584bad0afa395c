"""Destinations: where records go, one file each."""
