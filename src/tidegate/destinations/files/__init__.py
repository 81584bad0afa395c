"""Files: JSON Lines below one folder, renamed into place when their period is complete (SPEC 5)."""
