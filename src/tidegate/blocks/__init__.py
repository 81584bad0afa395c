"""Blocks: the steps of a workflow, one file each."""
