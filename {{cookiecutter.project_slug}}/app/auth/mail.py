"""The mails, and how they are sent."""

import asyncio
import logging
import sys
from collections import deque
from email.message import EmailMessage
from email.utils import formatdate, make_msgid

import aiosmtplib

from app.auth.settings import SCHEMES
from app.config import Settings

TIMEOUT = 10  # seconds for one mail
AT_ONCE = 100  # mails; further ones are lost

logger = logging.getLogger(__name__)

# By name: the subject and the text.
MAILS = {
    "verify": (
        "Verify your e-mail address",
        "Somebody, probably you, has registered with this address. To confirm it:",
    ),
    "reset": (
        "Choose a new password",
        "Somebody, probably you, has asked for a new password. To choose one:",
    ),
    "known": (
        "You have an account",
        "Somebody, probably you, has registered with this address, which has an account.\n"
        "You can log in. If you do not know the password, choose a new one:",
    ),
    "choose": (
        "Verify your e-mail address",
        "Somebody, probably you, has registered with this address. To confirm it, choose the\n"
        "password that counts:",
    ),
}
END = "If it was not you, ignore this mail. Do not pass it on: it gives access to the account."


class Mailer:
    """Sends to the server of MAIL_URL. With `console://` it prints, and keeps mails in `sent`."""

    def __init__(self, settings: Settings) -> None:
        self.url, self.sender = settings.mail_url, str(settings.mail_from)
        self.page = settings.auth_page_url
        self.sent: deque[EmailMessage] = deque(maxlen=100)
        self.sending = 0

    async def send(self, name: str, email: str, token: str) -> bool:
        """Tell whether it was sent. A failure is logged without the token."""
        if self.sending >= AT_ONCE:
            logger.error("A mail is lost, because too many wait for the server.")
            return False
        self.sending += 1
        try:
            async with asyncio.timeout(TIMEOUT):
                await self.deliver(self.compose(name, email, token))
            return True
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            logger.error("A mail was not sent: %s", type(error).__name__)
            return False
        finally:
            self.sending -= 1

    def compose(self, name: str, email: str, token: str) -> EmailMessage:
        subject, text = MAILS[name]
        use = "verify" if name == "verify" else "reset"
        # In the fragment, which browsers send to no server.
        way = f"{self.page}#{use}={token}" if self.page else f"use the token {token}"
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = self.sender, email, subject
        message["Date"] = formatdate()
        message["Message-ID"] = make_msgid(domain=self.sender.rpartition("@")[2].rstrip(">"))
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(f"{text}\n\n{way}\n\n{END}\n")
        return message

    async def deliver(self, message: EmailMessage) -> None:
        if self.url.drivername == "console":
            self.sent.append(message)
            print(f"Mail to {message['To']}:\n{message.get_content()}", file=sys.stderr)
            return
        await aiosmtplib.send(
            message,
            hostname=self.url.host,
            port=self.url.port,
            username=self.url.username,
            password=None if self.url.password is None else str(self.url.password),
            timeout=TIMEOUT,
            **SCHEMES[self.url.drivername],
        )
