"""One package per technology. Adapters do not know each other."""
