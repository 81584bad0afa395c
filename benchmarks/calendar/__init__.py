"""The calendar beside others: how fast, and which answers where clocks change."""
