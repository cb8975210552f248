"""A receiver of OpenTelemetry's protocol (HTTP, protobuf) on loopback."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2


@dataclass
class Receiver:
    """What was received: path and body of each request. It answers while `answering` is set."""

    url: str
    exports: list[tuple[str, bytes]] = field(default_factory=list)
    answering: Event = field(default_factory=Event)

    @property
    def content(self) -> bytes:
        return b"".join(body for _, body in self.exports)

    def spans(self) -> list[Any]:
        return self.items("traces", "spans", trace_service_pb2.ExportTraceServiceRequest)

    def metrics(self) -> list[Any]:
        return self.items("metrics", "metrics", metrics_service_pb2.ExportMetricsServiceRequest)

    def items(self, signal: str, kind: str, request: Any) -> list[Any]:
        return [
            item
            for path, body in self.exports
            if path == f"/v1/{signal}"
            for resource in getattr(request.FromString(body), f"resource_{kind}")
            for scope in getattr(resource, f"scope_{kind}")
            for item in getattr(scope, kind)
        ]

    def points(self, name: str) -> list[tuple[dict[str, Any], Any]]:
        """The data points of a metric, each with its attributes, oldest first."""
        found = [metric for metric in self.metrics() if metric.name == name]
        return [
            (attributes(point), point)
            for metric in found
            for point in getattr(metric, metric.WhichOneof("data")).data_points
        ]


def attributes(item: Any) -> dict[str, Any]:
    """The attributes of a span, of a data point or of a resource."""
    values = {pair.key: pair.value for pair in item.attributes}
    return {key: getattr(value, value.WhichOneof("value")) for key, value in values.items()}


@contextmanager
def receiver() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received.answering.wait()
            received.exports.append((self.path, body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None: ...

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, *arguments: object) -> None: ...  # the client has gone

    with Server(("127.0.0.1", 0), Handler) as server:
        received = Receiver(f"http://127.0.0.1:{server.server_port}")
        received.answering.set()
        Thread(target=server.serve_forever).start()
        yield received
        received.answering.set()
        server.shutdown()
