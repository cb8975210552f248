"""Jobs of accounts: their mails, and the removal of expired rows."""

from datetime import timedelta
from functools import cache

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import service
from app.auth.__main__ import clean
from app.auth.mail import Mailer
from app.config import get_settings
from app.database import Database
from app.jobs.queue import enqueue, job, schedule


class MailRef(BaseModel):
    """The job makes the token, so that none lies in the queue."""

    name: str
    email: str


class Nothing(BaseModel):
    """No payload."""


class NotSent(Exception):
    """The mail server did not take the mail."""


@cache
def mailer() -> Mailer:
    return Mailer(get_settings())


@job()
async def send(session: AsyncSession, payload: MailRef) -> None:
    mail = await service.write_mail(session, payload.name, payload.email)
    await session.commit()
    if mail and not await mailer().send(*mail):
        raise NotSent


async def post(session: AsyncSession, name: str, email: str) -> None:
    """Enqueue a mail, before `delete_expired`, which deletes accounts without one."""
    await enqueue(session, send, MailRef(name=name, email=email), priority=1)


@job(seconds=3600)
async def delete_expired(session: AsyncSession, _: Nothing) -> None:
    idle = timedelta(seconds=get_settings().session_idle_seconds)
    await clean(Database(session.bind), idle)  # type: ignore[arg-type] # it is bound


schedule("37 3 * * *", delete_expired, Nothing())
