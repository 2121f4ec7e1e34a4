"""One spoken call through `parley dev` whose spans go to a collector: one trace from the HTTP request to the tool that the model
called, without gaps, in logs too. The collector is this file's own HTTP server, which reads each export with OpenTelemetry's
published protobuf classes. Usage: tracing_test.py"""
import base64
import collections
import gzip
import hashlib
import hmac
import http.server
import json
import os
import pathlib
import re
import sys
import threading
import time
import unittest
import urllib.request

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

SOURCE = pathlib.Path(os.environ["PARLEY_SOURCE_DIR"])
sys.path.insert(0, str(SOURCE / "tests" / "e2e"))
import cluster  # noqa: E402

SERVICES = {"api-server", "room-server", "dispatch-broker", "agent-server", "stt-gateway", "llm-gateway", "tts-gateway"}
# name → (service, names that its parent may have)
EXPECTED = {"POST /api/sessions": ("api-server", {None}),
            "CreateRoom": ("room-server", {"POST /api/sessions"}),
            "CreateDispatch": ("dispatch-broker", {"CreateRoom"}),
            "wait for an agent server": ("dispatch-broker", {"CreateDispatch"}),
            "job": ("agent-server", {"CreateDispatch"}),
            "start of the job": ("agent-server", {"job"}),
            "turn": ("agent-server", {"job"}),
            "tool": ("agent-server", {"job"}),
            "final transcript": ("stt-gateway", {"job"}),
            "chat": ("llm-gateway", {"job"}),
            "ask a model": ("llm-gateway", {"chat"}),
            "speak": ("tts-gateway", {"job"}),
            "GET /demo/room-rate/{room}": ("api-server", {"tool"})}


def unknown(message: Message):
    """Fields that OpenTelemetry's own schema does not know."""
    found = [field.field_number for field in UnknownFieldSet(message)]
    for descriptor, value in message.ListFields():
        if descriptor.message_type:
            repeated = not isinstance(value, Message)
            for one in value if repeated else [value]:
                found += unknown(one)
    return found


class Collector:
    """OTLP over HTTP, as far as a collector of traces must speak it; refuses what is malformed."""

    def __init__(self):
        self.spans, self.refused, self.requests, self.fail_next = [], [], 0, 0
        self.lock = threading.Lock()
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):  # pylint: disable=invalid-name
                body = self.rfile.read(int(self.headers["content-length"]))
                status, answer = collector.take(self.path, self.headers, body)
                self.send_response(status)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *arguments):  # pylint: disable=arguments-differ
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, path, headers, body):
        with self.lock:
            self.requests += 1
            if self.fail_next > 0:
                self.fail_next -= 1
                return 503, b""
            try:
                if path != "/v1/traces" or headers["content-type"] != "application/x-protobuf":
                    raise ValueError(f"{path} {headers['content-type']}")
                if headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                request = trace_service_pb2.ExportTraceServiceRequest.FromString(body)
                self.check(request)
            except Exception as error:  # pylint: disable=broad-except
                self.refused.append(repr(error))
                return 400, b""
        return 200, trace_service_pb2.ExportTraceServiceResponse().SerializeToString()

    def check(self, request):
        if unknown(request):
            raise ValueError(f"fields {unknown(request)} are not OTLP's")
        for group in request.resource_spans:
            resource = {a.key: a.value.string_value for a in group.resource.attributes}
            if not resource.get("service.name") or not resource.get("service.instance.id"):
                raise ValueError(f"resource {resource}")
            for scope in group.scope_spans:
                for span in scope.spans:
                    self.check_span(span)
                    self.spans.append((resource["service.name"], span))

    @staticmethod
    def check_span(span):
        if len(span.trace_id) != 16 or not any(span.trace_id) or len(span.span_id) != 8 or not any(span.span_id):
            raise ValueError(f"ids of {span.name}")
        if len(span.parent_span_id) not in (0, 8) or not span.name or span.flags != 1:
            raise ValueError(f"parent, name or flags of {span.name}")
        if span.kind not in trace_pb2.Span.SpanKind.values() or span.kind == trace_pb2.Span.SPAN_KIND_UNSPECIFIED:
            raise ValueError(f"kind of {span.name}")
        now = time.time_ns()
        if not now - 600e9 < span.start_time_unix_nano <= span.end_time_unix_nano < now + 5e9:
            raise ValueError(f"times of {span.name}: {span.start_time_unix_nano} to {span.end_time_unix_nano}, now {now}")
        for attribute in span.attributes:
            if not attribute.key or attribute.value.WhichOneof("value") is None:
                raise ValueError(f"attribute {attribute.key} of {span.name}")

    def traces(self):
        with self.lock:
            found = collections.defaultdict(list)
            for service, span in self.spans:
                found[span.trace_id.hex()].append((service, span))
            return found


def bearer(**video):
    """A token of the development key pair."""
    def part(thing):
        return base64.urlsafe_b64encode(thing).rstrip(b"=").decode()
    head = part(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
    claims = part(json.dumps({"iss": "devkey", "sub": "test", "exp": int(time.time()) + 600, "video": video}).encode())
    return f"{head}.{claims}.{part(hmac.new(b'secret', f'{head}.{claims}'.encode(), hashlib.sha256).digest())}"


class TracingTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.collector = Collector()
        cls.dev = cluster.Dev()
        cls.addClassCleanup(cls.dev.close)
        cls.dev.start("--trace-endpoint", cls.collector.url)

    def eventually(self, condition, what):
        deadline = time.monotonic() + 10
        while not condition():
            self.assertLess(time.monotonic(), deadline, what)
            time.sleep(0.05)

    def test_a_call_is_one_trace_without_gaps(self):
        result = self.dev.run("--json", "call", "--agent", "front-desk", "--say", "how much is a single room",
                              "--expect", "single room is 80 euros", "--expect-tool")
        self.assertEqual(result.returncode, 0, result.stderr + self.dev.log()[-2000:])

        def whole():
            for trace, spans in self.collector.traces().items():
                if set(EXPECTED) <= {span.name for _, span in spans}:
                    return trace, spans
            return None

        self.eventually(whole, "no trace has all of " + ", ".join(EXPECTED) + "; there are " + json.dumps(
            {trace: sorted({span.name for _, span in spans}) for trace, spans in self.collector.traces().items()}))
        trace, spans = whole()
        self.assertEqual({service for service, _ in spans}, SERVICES)
        by_id = {span.span_id: span for _, span in spans}
        self.assertEqual(len(by_id), len(spans), "span ids are not unique")
        for service, span in spans:
            parent = by_id[span.parent_span_id].name if span.parent_span_id else None
            expected_service, parents = EXPECTED.get(span.name, (service, {parent}))
            self.assertEqual(service, expected_service, span.name)
            self.assertIn(parent, parents, span.name)
        # Children lie within what waited for them.
        for inner, outer in (("CreateDispatch", "CreateRoom"), ("CreateRoom", "POST /api/sessions"), ("ask a model", "chat"),
                             ("GET /demo/room-rate/{room}", "tool")):
            for _, span in spans:
                if span.name == inner:
                    around = by_id[span.parent_span_id]
                    self.assertEqual(around.name, outer)
                    slack = 2_000_000  # two readings of two clocks
                    self.assertGreaterEqual(span.start_time_unix_nano + slack, around.start_time_unix_nano, inner)
                    self.assertLessEqual(span.end_time_unix_nano, around.end_time_unix_nano + slack, inner)
        self.assertEqual(self.collector.refused, [])
        print("one call:", len(spans), "spans,", dict(collections.Counter(span.name for _, span in spans)))
        # The agent server's lines about the job name the trace.
        lines = [line for line in self.dev.log().splitlines() if re.search(r"job (running|ended)", line)]
        self.assertTrue(any(f"trace_id={trace}" in line for line in lines), lines)

    def test_a_trace_that_came_with_the_request_goes_on(self):
        trace, parent = os.urandom(16).hex(), os.urandom(8).hex()
        for flags, kept in (("01", True), ("00", False)):
            request = urllib.request.Request(f"{self.dev.url}/api/workers", headers={
                "authorization": "Bearer " + bearer(roomList=True), "traceparent": f"00-{trace}-{parent}-{flags}"})
            with urllib.request.urlopen(request, timeout=10) as answer:
                self.assertEqual(answer.status, 200)
            if kept:
                self.eventually(lambda: trace in self.collector.traces(), "the trace did not arrive")
        (service, span), = self.collector.traces()[trace]  # not the one that nobody wants kept
        self.assertEqual((service, span.name, span.parent_span_id.hex()), ("api-server", "GET /api/workers", parent))

    def test_a_collector_that_is_busy_gets_them_later(self):
        with self.collector.lock:
            self.collector.fail_next = 2
        trace = os.urandom(16).hex()
        request = urllib.request.Request(f"{self.dev.url}/api/workers", headers={
            "authorization": "Bearer " + bearer(roomList=True), "traceparent": f"00-{trace}-{os.urandom(8).hex()}-01"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            self.assertEqual(answer.status, 200)
        self.eventually(lambda: self.collector.fail_next == 0 and trace in self.collector.traces(), "it did not come again")


if __name__ == "__main__":
    unittest.main(verbosity=2)
