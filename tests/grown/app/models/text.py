"""Texts in several languages."""

from sqlalchemy.orm import Mapped, mapped_column

from app.database import Base


class Text(Base):
    """One text in one language."""

    __tablename__ = "texts"

    key: Mapped[str] = mapped_column(primary_key=True)
    language: Mapped[str] = mapped_column(primary_key=True)
    text: Mapped[str]
