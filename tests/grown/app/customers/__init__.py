"""Customers: create, export, delete softly."""
