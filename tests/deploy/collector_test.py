"""A real OpenTelemetry collector (collector/main.go, built by `go` once for a build folder) takes the spans of a call.
Usage: collector_test.py SOURCE_DIR BUILD_DIR"""
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import unittest

SOURCE, BUILD = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
sys.path.insert(0, str(SOURCE / "tests" / "e2e"))
import cluster  # noqa: E402

NAMES = {"POST /api/sessions", "CreateRoom", "CreateDispatch", "wait for an agent server", "job", "start of the job", "chat", "speak"}
FIELD = re.compile(r"^ +(Trace ID|Parent ID|ID|Name|Kind) +: ?(.*)$", re.MULTILINE)


def build():
    """The program, made from its sources where they stand, with the modules that go.sum names."""
    program = BUILD / "deploy" / "go" / "collector"
    sources = [SOURCE / "tests" / "deploy" / "collector" / name for name in ("main.go", "go.mod", "go.sum")]
    if program.exists() and all(program.stat().st_mtime > source.stat().st_mtime for source in sources):
        return program
    with tempfile.TemporaryDirectory() as folder:
        for source in sources:
            shutil.copy(source, folder)
        program.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["go", "build", "-o", str(program), "."], cwd=folder, check=True, timeout=1500)
    return program


class CollectorTest(unittest.TestCase):
    def setUp(self):
        program = build()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        config = pathlib.Path(folder.name) / "config.yaml"
        config.write_text(f"""
receivers: {{otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{self.port}"}}}}}}}}
exporters: {{debug: {{verbosity: detailed, sampling_initial: 100000}}}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines: {{traces: {{receivers: [otlp], exporters: [debug]}}}}
""")
        self.log = pathlib.Path(folder.name) / "collector.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([str(program), "--config", f"file:{config}"], stdout=log, stderr=log)
        self.addCleanup(self.process.wait)
        self.addCleanup(self.process.kill)
        self.eventually(lambda: "Everything is ready" in self.log.read_text(), "the collector did not start")

    def eventually(self, condition, what):
        deadline = time.monotonic() + 20
        while not condition():
            self.assertLess(time.monotonic(), deadline, what + "\n" + self.log.read_text()[-3000:])
            time.sleep(0.1)

    def spans(self):
        """Those that the collector wrote down: a dict of its fields each."""
        return [dict(FIELD.findall(part)) for part in re.split(r"^Span #\d+$", self.log.read_text(), flags=re.MULTILINE)[1:]]

    def test_a_call_arrives_as_one_trace(self):
        dev = cluster.Dev()
        self.addCleanup(dev.close)
        dev.start("--trace-endpoint", f"http://127.0.0.1:{self.port}")
        result = dev.run("call", "--agent", "front-desk", "--text", "what does a suite cost", "--expect", "suite room is 250 euros")
        self.assertEqual(result.returncode, 0, result.stderr)

        def of_the_call():
            spans = self.spans()
            traces = {s["Trace ID"] for s in spans if s["Name"] == "POST /api/sessions"}
            return [s for s in spans if s["Trace ID"] in traces]

        self.eventually(lambda: NAMES <= {s["Name"] for s in of_the_call()}, "spans are missing")
        spans = of_the_call()
        self.assertEqual(len({s["Trace ID"] for s in spans}), 1)
        known = {s["ID"] for s in spans}
        roots = [s["Name"] for s in spans if not s["Parent ID"].strip()]
        self.assertEqual(roots, ["POST /api/sessions"])
        self.assertEqual([s for s in spans if s["Parent ID"].strip() and s["Parent ID"] not in known], [])
        print(f"{len(spans)} spans of one trace")
        self.assertEqual(dev.stop(), 0)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    unittest.main(argv=[sys.argv[0]], verbosity=2)
