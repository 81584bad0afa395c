"""What a person asks of installations, records, messages and the data directory."""
