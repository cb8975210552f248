"""Tests of the generated wiring. The template copies this folder into a baked project."""
