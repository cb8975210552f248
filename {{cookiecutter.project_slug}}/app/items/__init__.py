"""The example feature: items that can be created, read, changed and deleted."""
