"""Every version of PostgreSQL that Tidegate promises to work with (SPEC 7)."""
