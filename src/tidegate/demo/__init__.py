"""The demo: a sandbox shop on localhost and three tenants on an accelerated clock."""
