"""A load balancer that asks its servers for readiness."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress

import httpx
from servers import free_port
from serving import Server, wait_until


class Balancer:
    """Spreads connections over the servers that were ready when last asked.

    A client may keep its connection, so a server that leaves must close it. A balancer that
    spreads requests would hide that.
    """

    def __init__(self, servers: list[Server]) -> None:
        self.servers = servers
        self.ready: list[Server] = []
        self.turn = 0
        self.port = free_port()
        self.stopped = False

    async def run(self) -> None:
        limits = httpx.Limits(max_keepalive_connections=0)
        async with (
            httpx.AsyncClient(limits=limits, timeout=2, trust_env=False) as http,
            await asyncio.start_server(self.pass_on, "127.0.0.1", self.port),
        ):
            while not self.stopped:
                servers = self.servers.copy()
                found = await asyncio.gather(*(is_ready(http, server) for server in servers))
                self.ready = [
                    server for server, ready in zip(servers, found, strict=True) if ready
                ]
                await asyncio.sleep(0.2)

    async def pass_on(self, client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        self.turn += 1
        with closing(answer):  # even if no server is ready, or it refuses
            if not self.ready:
                return
            server = self.ready[self.turn % len(self.ready)]
            source, request = await asyncio.open_connection(server.host, server.port)
            await asyncio.gather(copy(client, request), copy(source, answer))


async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await source.read(2**16):
            target.write(data)
    target.close()


async def is_ready(http: httpx.AsyncClient, server: Server) -> bool:
    try:
        return (await http.get(f"{server.url}/health/ready")).is_success
    except httpx.TransportError:
        return False


@contextmanager
def balanced(servers: list[Server]) -> Iterator[Balancer]:
    """Run a balancer in front of the servers. The list may grow meanwhile."""
    balancer = Balancer(servers)
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(asyncio.run, balancer.run())
        try:
            wait_until(lambda: len(balancer.ready) == len(servers))
            yield balancer
        finally:
            balancer.stopped = True
            running.result()
