"""Times as PostgreSQL's settings have them: a number with its unit, or 0 for no limit."""

import re

UNITS = {"ms": 0.001, "s": 1, "min": 60, "h": 3600, "d": 86400}
LONGEST = 24 * UNITS["d"]  # a little less than what PostgreSQL can count in milliseconds


def seconds(text: str) -> float:
    """What `500ms` or `5min` is. Raises ValueError."""
    found = re.fullmatch(r"([0-9]+)(ms|s|min|h|d)", text)
    if not found and text != "0":
        raise ValueError(f"{text} is no time; it should look like 500ms, 30s or 5min")
    value = int(found[1]) * UNITS[found[2]] if found else 0
    if value > LONGEST:
        raise ValueError(f"{text} is too long; 24d is the longest")
    return value
