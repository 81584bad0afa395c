"""The store: all of Tidegate's SQL, and the only place that knows a table's name."""
