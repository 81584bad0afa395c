"""The engine: planner, dispatcher, worker, sweeper, and the commands and queries of the faces."""
