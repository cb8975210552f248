"""Products: list them, and upload a price list."""
