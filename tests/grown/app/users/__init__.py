"""Users and their login."""
