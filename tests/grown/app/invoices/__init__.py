"""Invoices: create, read, pay, and push the open ones."""
