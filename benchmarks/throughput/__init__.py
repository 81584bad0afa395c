"""Throughput side by side: a hand-written floor, Tidegate, dlt and a Singer tap with its PostgreSQL target."""
