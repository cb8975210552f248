"""The translation of libpq's URL parameters for asyncpg."""

import ssl
from typing import Any

from sqlalchemy import URL

# asyncpg reads these parameters as libpq does, except the timeout, and sends the last two to the
# server.
READ_BY_ASYNCPG = {
    *("host", "port", "passfile", "target_session_attrs", "krbsrvname", "gsslib"),
    *("sslmode", "sslcert", "sslkey", "sslpassword", "sslrootcert", "sslcrl", "sslnegotiation"),
    *("ssl_min_protocol_version", "ssl_max_protocol_version", "connect_timeout"),
    *("application_name", "options"),
}
# asyncpg can ignore these values: it already behaves like that.
NO_EFFECT = {
    "channel_binding": {"disable", "prefer"},
    "client_encoding": {"auto", "utf8", "UTF8"},
    "gssencmode": {"disable", "prefer"},
}
# verified_context() does not support these.
NOT_IN_CONTEXT = {"sslcrl", "ssl_min_protocol_version", "ssl_max_protocol_version"}


def unknown_to_asyncpg(url: URL) -> list[str]:
    known = READ_BY_ASYNCPG
    if needs_context(url):
        known = known - NOT_IN_CONTEXT
        if not str(url.query.get("host", "")).startswith("/"):  # a socket has no certificate
            known |= {"channel_binding"}
    return [
        name
        for name, value in url.query.items()
        if name not in known and value not in NO_EFFECT.get(name, ())
    ]


def asyncpg_arguments(url: URL) -> tuple[URL, dict[str, Any]]:
    """Return the URL with hosts as its only parameters, and asyncpg's `connect_args`."""
    hosts = {name: url.query[name] for name in ("host", "port") if name in url.query}
    query = {name: value for name, value in url.query.items() if name not in {*hosts, *NO_EFFECT}}
    arguments: dict[str, Any] = {}
    if "connect_timeout" in query:
        arguments["timeout"] = max(int(str(query.pop("connect_timeout"))), 0) or None
    if needs_context(url):
        arguments["ssl"] = verified_context(url)  # wins over the parameters
    if query:
        arguments["dsn"] = URL.create("postgresql", query=query).render_as_string(False)
    return url.set(query=hosts), arguments


def needs_context(url: URL) -> bool:
    """Tell whether the server must be verified in a way that asyncpg's URLs cannot express."""
    # asyncpg has no channel binding. A verified certificate prevents a man in the middle too.
    binding, root = url.query.get("channel_binding"), url.query.get("sslrootcert")
    return binding == "require" or root == "system"


def verified_context(url: URL) -> ssl.SSLContext:
    """Return the TLS context of sslmode=verify-full, with `sslrootcert` or the system's roots."""
    query: dict[str, Any] = dict(url.query)
    root = query.get("sslrootcert", "system")
    context = ssl.create_default_context(cafile=None if root == "system" else root)
    if "sslcert" in query:
        context.load_cert_chain(query["sslcert"], query.get("sslkey"), query.get("sslpassword"))
    return context
