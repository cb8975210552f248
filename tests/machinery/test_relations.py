"""Attributes that a query did not load: a sentence that names them."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from conftest import client_of
from fastapi import FastAPI
from fastapi.exceptions import ResponseValidationError
from pydantic import BaseModel, ConfigDict
from sqlalchemy import ForeignKey, Identity, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    joinedload,
    mapped_column,
    relationship,
    selectinload,
    with_loader_criteria,
)
from sqlalchemy.orm.exc import DetachedInstanceError

from app.database import Database
from app.database.sessions import NotLoaded
from app.dependencies import ReadSession


class Scratch(DeclarativeBase):
    """A base of this module, so that Alembic does not see its tables."""


class Parent(Scratch):
    __tablename__ = "pytest_parents"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    notes: Mapped[str] = mapped_column(default="long", deferred=True)
    children: Mapped[list["Child"]] = relationship(back_populates="parent")


class Child(Scratch):
    __tablename__ = "pytest_children"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    parent_id: Mapped[int] = mapped_column(ForeignKey(Parent.id))
    parent: Mapped[Parent] = relationship(back_populates="children")


class ParentRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    children: list[Any]


@pytest.fixture
async def database(connection: AsyncConnection) -> Database:
    """A database with one parent, who has two children."""
    await connection.run_sync(Scratch.metadata.create_all)
    database = Database(connection)
    async with database.sessions.begin() as session:
        session.add(Parent(children=[Child(), Child()]))
    return database


@pytest.fixture
async def session(database: Database) -> AsyncIterator[AsyncSession]:
    async with database.sessions() as session:
        yield session


async def test_session_names_the_attribute_that_was_not_loaded(session: AsyncSession) -> None:
    parent = (await session.scalars(select(Parent))).one()
    with pytest.raises(NotLoaded, match=r"Parent\.children was not loaded: .*selectinload"):
        _ = parent.children
    with pytest.raises(NotLoaded, match=r"^notes of Parent was not loaded: .*session\.refresh"):
        _ = parent.notes
    session.expire(parent)
    with pytest.raises(NotLoaded, match=r"^children and id of Parent was not loaded: .*refresh"):
        _ = parent.id
    child = (await session.scalars(select(Child).limit(1))).one()
    session.expunge(parent)
    with pytest.raises(NotLoaded, match=r"Child\.parent was not loaded: "):
        _ = child.parent


async def test_attribute_loads_where_it_is_awaited(session: AsyncSession) -> None:
    parent = (await session.scalars(select(Parent))).one()
    await session.refresh(parent, ["children", "notes"])
    assert (len(parent.children), parent.notes) == (2, "long")


@pytest.mark.parametrize("option", [selectinload, joinedload])
async def test_reader_loads_relations(database: Database, option: Any) -> None:
    query = select(Parent).options(option(Parent.children))
    (parent,) = (await database.reader.scalars(query)).unique()
    assert len(parent.children) == 2
    found = await database.reader.get(Parent, parent.id, options=[option(Parent.children)])
    assert found
    assert len(found.children) == 2


@pytest.mark.parametrize("option", [selectinload(Parent.children), joinedload("*")])
async def test_rows_refuse_to_load_relations(database: Database, option: Any) -> None:
    with pytest.raises(ValueError, match=r"use scalars\(\) or get\(\)"):
        await database.reader.rows(select(Parent).options(option))
    criteria = with_loader_criteria(Parent, Parent.id == 0)
    assert await database.reader.rows(select(Parent).options(criteria)) == []


@pytest.mark.usefixtures("database")
async def test_route_that_reads_an_attribute_without_loading_it_says_how_to_load_it(
    app: FastAPI,
) -> None:
    @app.get("/direct")
    async def direct(reader: ReadSession) -> int:
        return len((await reader.scalars(select(Parent))).one().children)

    @app.get("/model", response_model=ParentRead)
    async def model(reader: ReadSession) -> Parent:
        return (await reader.scalars(select(Parent))).one()

    for path, kind in {
        "/direct": DetachedInstanceError,
        "/model": ResponseValidationError,
    }.items():
        with pytest.raises(kind, match="children") as error:
            await client_of(app).get(path)
        assert "selectinload" in error.value.__notes__[0]
        assert (await client_of(app, raise_bugs=False).get(path)).status_code == 500
