"""Reports for the bookkeeper."""
