"""The example feature: create, list, read, update and delete items."""
