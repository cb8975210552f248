"""Access tokens of an identity provider: keys, verification, scopes. See docs/auth.md."""
