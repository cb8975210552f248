"""What libpq's parameters in a URL mean for asyncpg."""

import ssl
from typing import Any

from sqlalchemy import URL

# asyncpg reads these in a URL as libpq does; the last two go on to the server.
READ_BY_ASYNCPG = {
    *("host", "port", "passfile", "target_session_attrs", "krbsrvname", "gsslib"),
    *("sslmode", "sslcert", "sslkey", "sslpassword", "sslrootcert", "sslcrl", "sslnegotiation"),
    *("ssl_min_protocol_version", "ssl_max_protocol_version"),
    *("application_name", "options"),
}
# These values ask for nothing that asyncpg would not do anyway.
IMPLIED = {
    "channel_binding": {"disable", "prefer"},
    "client_encoding": {"auto", "utf8", "UTF8"},
    "gssencmode": {"disable", "prefer"},
}
# These are done by `context`, which does not do NOT_WITH_CONTEXT.
OF_CONTEXT = {"channel_binding", "sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword"}
NOT_WITH_CONTEXT = {"sslcrl", "ssl_min_protocol_version", "ssl_max_protocol_version"}


def unknown_to_asyncpg(url: URL) -> list[str]:
    """The parameters that ask for what asyncpg cannot do."""
    known = READ_BY_ASYNCPG | {"connect_timeout"}
    if needs_context(url):
        known = known - NOT_WITH_CONTEXT | OF_CONTEXT
    if str(url.query.get("host", "")).startswith("/"):  # a socket has no certificate to verify
        known -= {"channel_binding"}
    return [
        name
        for name, value in url.query.items()
        if name not in known and value not in IMPLIED.get(name, ())
    ]


def asyncpg_arguments(url: URL) -> tuple[URL, dict[str, Any]]:
    """The URL with no more than its hosts as parameters, and asyncpg's `connect_args`."""
    hosts = {name: url.query[name] for name in ("host", "port") if name in url.query}
    query = {name: value for name, value in url.query.items() if name not in {*hosts, *IMPLIED}}
    arguments: dict[str, Any] = {}
    if "connect_timeout" in query:
        arguments["timeout"] = max(int(str(query.pop("connect_timeout"))), 0) or None
    if needs_context(url):
        arguments["ssl"] = context(url)
        query = {name: value for name, value in query.items() if name not in OF_CONTEXT}
    if query:
        arguments["dsn"] = URL.create("postgresql", query=query).render_as_string(False)
    return url.set(query=hosts), arguments


def needs_context(url: URL) -> bool:
    """Whether the server must be verified in a way that asyncpg does not read in a URL.

    Channel binding proves that nobody sits between. asyncpg has none; a verified
    certificate proves it too.
    """
    return (
        url.query.get("channel_binding") == "require" or url.query.get("sslrootcert") == "system"
    )


def context(url: URL) -> ssl.SSLContext:
    """sslmode=verify-full, by the certificates of `sslrootcert` or of this machine.

    Raises OSError for a file that cannot be read.
    """
    query: dict[str, Any] = dict(url.query)
    root = query.get("sslrootcert", "system")
    context = ssl.create_default_context(cafile=None if root == "system" else root)
    if "sslcert" in query:
        context.load_cert_chain(query["sslcert"], query.get("sslkey"), query.get("sslpassword"))
    return context
