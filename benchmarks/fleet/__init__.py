"""A million schedules."""
