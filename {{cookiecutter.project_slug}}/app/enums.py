"""How an enum's CHECK constraint is told from others."""

from typing import TypeGuard

from sqlalchemy import CheckConstraint, Enum
from sqlalchemy.sql.elements import BinaryExpression
from sqlalchemy.sql.operators import in_op


def is_of_enum(item: object) -> TypeGuard[CheckConstraint]:
    """Whether this is the constraint `column IN (values)` that comes with an enum."""
    return (
        isinstance(item, CheckConstraint)
        and isinstance(item.sqltext, BinaryExpression)
        and item.sqltext.operator is in_op
        and all(isinstance(column.type, Enum) for column in item.columns)
    )
