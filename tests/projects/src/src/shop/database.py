"""A naming convention of its own, and enums that are text."""

import enum
from typing import Annotated

from sqlalchemy import Enum, MetaData, String
from sqlalchemy.orm import DeclarativeBase, mapped_column

key = Annotated[int, mapped_column(primary_key=True)]
text = Annotated[str, mapped_column(String(100))]


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "%(column_0_label)s_idx",
            "uq": "%(table_name)s_%(column_0_name)s_unique",
            "ck": "%(table_name)s_%(constraint_name)s_check",
            "fk": "%(table_name)s_%(column_0_name)s_to_%(referred_table_name)s",
            "pk": "%(table_name)s_key",
        }
    )
    type_annotation_map = {
        enum.Enum: Enum(enum.Enum, native_enum=False, create_constraint=True, length=20)
    }
