"""Accounts: registration, login, sessions, keys for machines, roles. See docs/auth.md."""
