"""Limits that all processes share: so many failures in so many seconds.

A row has the time at which nothing counts any more. Each failure moves it by `seconds / count`.
Beyond now + `seconds`, the client must wait.
"""

import math
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from ipaddress import ip_network
from typing import Any

from sqlalchemy import Double, Interval, bindparam, cast, extract, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.errors import TooManyRequests
from app.database import Reader
from app.models.account import Throttle

KNOWN = timedelta(days=30)


@dataclass(frozen=True)
class Limit:
    """At most `count` in `seconds`."""

    count: int
    seconds: float

    @property
    def step(self) -> timedelta:
        return timedelta(seconds=self.seconds / self.count)


FAILURES = Limit(10, 180)  # wrong passwords, by address and by account
REQUESTS = Limit(10, 180)  # requests for mails, by address
MAILS = Limit(5, 3600)  # mails of one kind to one account

STEP = bindparam("step", type_=Interval)
SECONDS = cast(extract("epoch", Throttle.free_at - func.now()), Double)
WAITS = select(Throttle.key, SECONDS.label("seconds")).where(Throttle.key.in_(bindparam("keys")))
ADD = (
    insert(Throttle)
    .values(key=bindparam("key"), free_at=func.now() + STEP)
    .on_conflict_do_update(
        index_elements=[Throttle.key],
        set_={"free_at": func.greatest(Throttle.free_at, func.now()) + STEP},
    )
    .returning(SECONDS)
)


def key(*values: str) -> bytes:
    return sha256("\n".join(values).encode()).digest()


def network(address: str | None) -> str:
    """Return the address, or for IPv6 its network: a client has all of a /64.

    Clients without an address, for instance those of a Unix socket, share one limit.
    """
    if address and ":" in address:
        return str(ip_network((address, 64), strict=False))
    return str(address)


class Attempt:
    """A password that somebody tries, from an address."""

    def __init__(self, email: str, address: str | None) -> None:
        place = network(address)
        self.address, self.account = key("address", place), key("account", email)
        self.known = key("known", email, place)

    async def check(self, reader: Reader) -> None:
        """Raise TooManyRequests after too many failures.

        Failures elsewhere do not count for an address from which the account has logged in, so
        nobody can lock its owner out.
        """
        keys = [self.address, self.account, self.known]
        waits = {row.key: row.seconds for row in await reader.rows(WAITS, {"keys": keys})}
        counted = keys[:1] if waits.get(self.known, 0) > 0 else keys[:2]
        refuse(max(waits.get(each, 0) for each in counted), FAILURES, one_more=True)

    async def count(self, session: AsyncSession) -> None:
        """Count a failure."""
        for each in (self.address, self.account):  # in this order, or two wait for each other
            await add(session, each, FAILURES)

    async def remember(self, session: AsyncSession) -> None:
        """Store that the account was used from this address."""
        values: dict[str, Any] = {"key": self.known, "free_at": func.now() + KNOWN}
        known = insert(Throttle).values(values)
        await session.execute(known.on_conflict_do_update(index_elements=["key"], set_=values))


async def count_mail(session: AsyncSession, kind: str, email: str, address: str | None) -> None:
    """Raise TooManyRequests if the client, or the mailbox, has had too many mails."""
    refuse(await add(session, key("mail", network(address)), REQUESTS), REQUESTS)
    refuse(await add(session, key(kind, email), MAILS), MAILS)


async def add(session: AsyncSession, key: bytes, limit: Limit) -> float:
    """Count one. Returns the seconds until nothing counts."""
    seconds: float = (await session.scalars(ADD, {"key": key, "step": limit.step})).one()
    return seconds


def refuse(seconds: float, limit: Limit, *, one_more: bool = False) -> None:
    """Raise TooManyRequests if the limit is exceeded, or would be by one more."""
    over = seconds - limit.seconds + (limit.step.total_seconds() if one_more else 0)
    if over > 0:
        raise TooManyRequests(math.ceil(over))
