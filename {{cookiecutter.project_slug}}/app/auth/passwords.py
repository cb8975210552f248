"""Passwords: argon2id in threads, a few at a time, because a hash takes 19 MiB and a core."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from unicodedata import normalize

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
from pydantic import SecretStr

from app.auth.errors import Busy

MEMORY, ROUNDS = 19456, 2  # KiB; the minimum of OWASP's Password Storage Cheat Sheet
AT_ONCE = 2
QUEUE = 100  # requests that wait or run; further ones get a 503

HASHER = PasswordHash([Argon2Hasher(time_cost=ROUNDS, memory_cost=MEMORY, parallelism=1)])
# Verified in place of a missing hash, so that an unknown address takes the same time.
NO_HASH = f"$argon2id$v=19$m={MEMORY},t={ROUNDS},p=1$bm9wYXNzd29yZG5vcGFzcw${'A' * 43}"


class Passwords:
    """Hashes and verifies for one process."""

    def __init__(self) -> None:
        self.slots = asyncio.Semaphore(AT_ONCE)
        self.queue = 0

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for a turn to hash. Raises Busy if too many wait."""
        if self.queue >= QUEUE:
            raise Busy("Too many logins at once: try again.")
        self.queue += 1
        try:
            async with self.slots:
                yield
        finally:
            self.queue -= 1

    async def hash(self, password: SecretStr) -> str:
        """Call it in a slot."""
        return await asyncio.to_thread(HASHER.hash, plain(password))

    async def verify(self, password: SecretStr, stored: str | None) -> tuple[bool, str | None]:
        """Compare, and return a new hash if the parameters were raised. Call it in a slot."""
        return await asyncio.to_thread(
            HASHER.verify_and_update, plain(password), stored or NO_HASH
        )


def plain(password: SecretStr) -> bytes:
    """Return the password in one form, however a keyboard composes its characters."""
    return normalize("NFKC", password.get_secret_value()).encode(errors="surrogatepass")
