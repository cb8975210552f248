"""Types that the schemas of several features share."""

from typing import Annotated, Any

from pydantic import AwareDatetime, Field

# One more than the largest bigint. OpenAPI writes bounds as floats, and 2**63 - 1 is not exact.
BIGINT_END = 2**63

Id = Annotated[int, Field(ge=1, lt=BIGINT_END, examples=[1])]
Cursor = Annotated[int, Field(ge=0, lt=BIGINT_END)]  # the last id of the previous page, or 0
Moment = Annotated[AwareDatetime, Field(examples=["2026-11-22T09:30:00Z"])]
Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]  # PostgreSQL cannot store NUL


def not_sent() -> Any:
    """The default of a field that may be left out but not be null. It is never stored."""
