"""One platform account shared by a thousand tenants and sixteen worker processes."""
