"""Types that the schemas of several features share."""

from typing import Annotated

from pydantic import Field

# One more than the largest bigint. A bound in OpenAPI is a float, and 2**63 is exact as one.
BIGINT_END = 2**63

Id = Annotated[int, Field(ge=1, lt=BIGINT_END, examples=[1])]
Cursor = Annotated[int, Field(ge=0, lt=BIGINT_END)]  # the id before a page's first; 0 is none
Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]  # PostgreSQL's text holds no NUL
