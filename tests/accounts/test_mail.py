"""Mails by SMTP: delivery, TLS, login, and servers that are down, slow or refuse."""

import asyncio
import logging
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Message as MessageHandler
from aiosmtpd.smtp import AuthResult, LoginPassword
from sqlalchemy import URL

from accounts.conftest import EMAIL, PASSWORD, Serve
from app.auth import mail
from app.database import ROOT

NEW = {"email": EMAIL, "password": PASSWORD}
WITHOUT_JOBS = pytest.mark.skipif(find_spec("app.jobs") is not None, reason="a worker sends mails")


class Mailbox(MessageHandler):
    """Keeps mails."""

    def __init__(self) -> None:
        super().__init__()
        self.mails: list[Message] = []

    def handle_message(self, message: Message) -> None:
        self.mails.append(message)


class Refusing(Mailbox):
    async def handle_RCPT(self, *_: Any) -> str:  # noqa: N802 - aiosmtpd's name
        return "550 ann@example.com is unknown"


class Slow(Mailbox):
    async def handle_DATA(self, *arguments: Any) -> str:  # noqa: N802 - aiosmtpd's name
        await asyncio.sleep(1)
        return str(await super().handle_DATA(*arguments))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@contextmanager
def smtp(handler: Mailbox, **options: Any) -> Iterator[int]:
    """Run an SMTP server. Yields its port."""
    port = free_port()
    controller = Controller(handler, hostname="127.0.0.1", port=port, **options)
    controller.start()
    try:
        yield port
    finally:
        controller.stop()


def text(message: Message) -> str:
    payload = message.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload.decode().replace("\r\n", "\n")


async def test_mail_is_delivered(serve: Serve) -> None:
    mailbox = Mailbox()
    sender = "Müller & Co <no-reply@example.com>"
    with smtp(mailbox) as port:
        url = f"smtp+plain://127.0.0.1:{port}"
        async with serve(mail_url=url, mail_from=sender) as client:
            assert (await client.post("/auth/register", json=NEW)).status_code == 202
            (message,) = mailbox.mails
            (token,) = re.findall(r"token (\S{43})\n", text(message))
            verified = await client.post("/auth/verify", json={"token": token})
            assert verified.status_code == 204
    assert message["To"] == EMAIL
    assert "no-reply@example.com" in message["From"]
    assert message["Date"]
    assert message["Message-ID"].endswith("@example.com>")


async def test_name_of_the_sender_may_have_a_comma(serve: Serve) -> None:
    mailbox = Mailbox()
    with smtp(mailbox) as port:
        url = f"smtp+plain://127.0.0.1:{port}"
        async with serve(mail_url=url, mail_from='"A, B" <no-reply@example.com>') as client:
            await client.post("/auth/register", json=NEW)
    assert mailbox.mails[0]["From"] == '"A, B" <no-reply@example.com>'


async def test_link_has_the_token_in_its_fragment(serve: Serve) -> None:
    page = "https://www.example.com/a-long-path/of-the-page-for-accounts?lang=en"
    mailbox = Mailbox()
    with smtp(mailbox) as port:
        url = f"smtp+plain://127.0.0.1:{port}"
        async with serve(mail_url=url, auth_page_url=page) as client:
            await client.post("/auth/register", json=NEW)
            await client.post("/auth/password/forgot", json=NEW)
    for message, use in zip(mailbox.mails, ["verify", "reset"], strict=True):
        assert re.search(rf"^{re.escape(page)}#{use}=[\w-]{{43}}$", text(message), re.MULTILINE)


@pytest.fixture
def authority(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> trustme.CA:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    return authority


def context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


def check(*arguments: Any) -> AuthResult:
    data = arguments[-1]
    good = isinstance(data, LoginPassword) and (data.login, data.password) == (b"me", b"p@ss/1")
    return AuthResult(success=good, handled=False)


@pytest.mark.parametrize(("password", "count"), [("p%40ss%2F1", 1), ("wrong", 0)])
async def test_starttls_and_login(
    serve: Serve,
    authority: trustme.CA,
    caplog: pytest.LogCaptureFixture,
    password: str,
    count: int,
) -> None:
    mailbox = Mailbox()
    options = {"require_starttls": True, "auth_required": True, "authenticator": check}
    with smtp(mailbox, tls_context=context(authority), **options) as port:
        async with serve(mail_url=f"smtp://me:{password}@127.0.0.1:{port}") as client:
            assert (await client.post("/auth/register", json=NEW)).status_code == 202
    assert len(mailbox.mails) == count
    assert ("A mail was not sent: SMTPAuthenticationError" in caplog.text) == (count == 0)
    assert "wrong" not in caplog.text


async def test_tls_from_the_start(serve: Serve, authority: trustme.CA) -> None:
    mailbox = Mailbox()
    with smtp(mailbox, ssl_context=context(authority)) as port:
        async with serve(mail_url=f"smtps://127.0.0.1:{port}") as client:
            await client.post("/auth/register", json=NEW)
    assert len(mailbox.mails) == 1


async def test_server_without_starttls_gets_no_mail(serve: Serve) -> None:
    mailbox = Mailbox()
    with smtp(mailbox) as port:
        async with serve(mail_url=f"smtp://127.0.0.1:{port}") as client:
            await client.post("/auth/register", json=NEW)
    assert mailbox.mails == []


async def test_unknown_certificate_gets_no_mail(serve: Serve, authority: trustme.CA) -> None:
    mailbox = Mailbox()
    with smtp(mailbox, tls_context=context(trustme.CA())) as port:
        async with serve(mail_url=f"smtp://127.0.0.1:{port}") as client:
            await client.post("/auth/register", json=NEW)
    assert mailbox.mails == []


@pytest.mark.parametrize("kind", ["down", "refuses", "silent"])
async def test_mail_that_cannot_be_sent_is_one_line_without_secrets(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    monkeypatch.setattr(mail, "TIMEOUT", 0.5)
    caplog.set_level(logging.INFO)

    writers = []

    async def say_nothing(_: object, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    with smtp(Refusing()) as refusing:
        ports = {"down": 1, "refuses": refusing, "silent": silent.sockets[0].getsockname()[1]}
        async with serve(mail_url=f"smtp+plain://127.0.0.1:{ports[kind]}") as client:
            assert (await client.post("/auth/register", json=NEW)).status_code == 202
    silent.close()
    for writer in writers:
        writer.close()
        await writer.wait_closed()
    (line,) = [record for record in caplog.records if record.name == "app.auth.mail"]
    assert line.levelname == "ERROR"
    assert re.fullmatch(r"A mail was not sent: \w+", line.getMessage())
    assert not line.exc_info


@WITHOUT_JOBS
async def test_mails_at_once_are_bounded(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mail, "AT_ONCE", 2)
    mailbox = Slow()
    with smtp(mailbox) as port:
        async with serve(mail_url=f"smtp+plain://127.0.0.1:{port}") as client:
            start = time.monotonic()
            requests = [
                client.post("/auth/register", json=NEW | {"email": f"{n}@example.com"})
                for n in range(4)
            ]
            await asyncio.gather(*requests)
    assert time.monotonic() - start < 5
    assert len(mailbox.mails) == 2
    assert caplog.text.count("A mail is lost") == 2


@WITHOUT_JOBS
def test_response_waits_for_no_mail_and_shutdown_does(fresh_url: URL) -> None:
    """SIGTERM comes while the server of mails is busy with one."""
    mailbox, port = Slow(), free_port()
    database = fresh_url.set(drivername="postgresql").render_as_string(hide_password=False)
    with smtp(mailbox) as mail_port:
        settings = {
            "DATABASE_URL": database,
            "DATABASE_URL_SYNC": database,
            "MAIL_URL": f"smtp+plain://127.0.0.1:{mail_port}",
            "SHUTDOWN_DELAY_SECONDS": "0.1",
        }
        command = [sys.executable, "-m", "app", f"--port={port}"]
        with subprocess.Popen(  # noqa: S603 - of this file
            command, cwd=ROOT, env=os.environ | settings, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr
            for line in process.stderr:
                if "Uvicorn running" in line:
                    break
            response = httpx.post(f"http://127.0.0.1:{port}/auth/register", json=NEW, timeout=30)
            assert response.status_code == 202
            assert mailbox.mails == []
            process.send_signal(signal.SIGTERM)
            process.stderr.read()
    assert process.returncode == 0
    assert len(mailbox.mails) == 1
