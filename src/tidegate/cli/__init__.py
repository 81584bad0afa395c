"""The command line `tidegate` (SPEC 8). Modules import what they need at the point of use, so that it starts quickly."""
