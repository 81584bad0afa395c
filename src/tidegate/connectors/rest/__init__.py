"""Connectors declared in YAML: loader -> declaration -> source, which asks with bounds, a pager and authentication."""
