"""parley doctor: finds nothing wrong in a healthy cluster, and each thing that is. Usage: doctor_test.py SOURCE_DIR"""
import http.server
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(sys.argv[1]) / "tests" / "e2e"))
import cluster  # noqa: E402

GOOD_KEYS = "cluster_key: " + "c" * 64 + "\nkeys:\n  - {key: APIone, secret: " + "s" * 64 + ", project: default}\n"


class DoctorTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dev = cluster.Dev()
        cls.addClassCleanup(cls.dev.close)
        cls.dev.start("--data-dir", pathlib.Path(cls.dev.folder.name) / "data")
        (socket,) = pathlib.Path(cls.dev.folder.name, "data").rglob("*.sock")
        cls.redis = f"unix:{socket}"

    def doctor(self, *arguments, code, env=None):
        done = self.dev.run("--json", "doctor", "--port-offset", self.dev.offset, *arguments, env=env)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return {check["check"]: check for check in json.loads(done.stdout)["checks"]}

    def private_redis(self, *arguments):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        socket = pathlib.Path(folder.name) / "redis.sock"
        process = subprocess.Popen(["redis-server", "--port", "0", "--unixsocket", socket, "--dir", folder.name, "--save", "", *arguments],
                                   stdout=subprocess.DEVNULL)
        self.addCleanup(process.wait, 10)
        self.addCleanup(process.kill)
        deadline = time.monotonic() + 10
        while not socket.exists():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.05)
        return f"unix:{socket}"

    def keys(self, text, mode=0o600):
        with tempfile.NamedTemporaryFile("w", suffix=".yaml", delete=False) as file:
            file.write(text)
        os.chmod(file.name, mode)
        self.addCleanup(os.unlink, file.name)
        return file.name

    def test_a_healthy_cluster(self):
        found = self.doctor("--redis", self.redis, "--keys-file", self.keys(GOOD_KEYS), code=0)
        self.assertEqual([c for c in found.values() if c["level"] == "fail"], [])
        for name in ("redis", "redis durability", "redis memory", "redis clock", "keys", "dispatch-broker", "room-server", "stt-gateway",
                     "tts-gateway", "llm-gateway", "agent-registry", "api-server", "credentials", "capacity of default", "versions",
                     "service versions", "clocks"):
            self.assertEqual(found[name]["level"], "ok", found.get(name))
        self.assertEqual(found["redis replicas"]["level"], "warn")

    def test_people_read_it_too(self):
        done = self.dev.run("doctor", "--port-offset", self.dev.offset, "--redis", self.redis)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("0 failed", done.stdout)

    def test_redis_that_forgets_or_evicts(self):
        found = self.doctor("--redis", self.private_redis("--maxmemory-policy", "allkeys-lru"), code=1)
        self.assertEqual(found["redis durability"]["level"], "fail")
        self.assertIn("appendonly", found["redis durability"]["fix"])
        self.assertEqual(found["redis memory"]["level"], "fail")

    def test_no_redis(self):
        self.assertEqual(self.doctor("--redis", "unix:/nowhere.sock", code=1)["redis"]["level"], "fail")

    def test_keys(self):
        for text, mode in ((GOOD_KEYS, 0o644), ("keys: []", 0o600), (GOOD_KEYS.replace("APIone", "devkey").replace("s" * 64, "secret"), 0o600)):
            found = self.doctor("--redis", self.redis, "--keys-file", self.keys(text, mode), code=1)
            self.assertEqual(found["keys"]["level"], "fail", text)
        found = self.doctor("--redis", self.redis, "--keys-file", self.keys(GOOD_KEYS.replace("s" * 64, "s" * 20)), code=0)
        self.assertEqual(found["keys"]["level"], "warn")

    def test_a_service_that_is_away(self):
        found = self.doctor("--redis", self.redis, code=1, env={"PARLEY_STT_ADDRESS": "127.0.0.1:1"})
        self.assertEqual(found["stt-gateway"]["level"], "fail")
        self.assertIn("PARLEY_STT_ADDRESS", found["stt-gateway"]["fix"])

    def test_a_service_of_another_version_whose_clock_is_slow(self):
        class Other(http.server.BaseHTTPRequestHandler):
            def do_GET(self):  # pylint: disable=invalid-name
                body = b'# TYPE parley_build_info gauge\nparley_build_info{version="0.0.9"} 1\n' if self.path == "/metrics" else b"ready\n"
                self.send_response_only(200)
                self.send_header("Date", self.date_time_string(time.time() - 30))
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Other)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        found = self.doctor("--redis", self.redis, code=1, env={"PARLEY_STT_ADDRESS": f"127.0.0.1:{server.server_port - 1000}"})
        self.assertEqual(found["stt-gateway"]["level"], "ok")
        self.assertEqual(found["service versions"]["level"], "warn")
        self.assertIn("0.0.9: stt-gateway", found["service versions"]["detail"])
        self.assertEqual(found["clocks"]["level"], "warn")
        self.assertIn("stt-gateway's is 30 s", found["clocks"]["detail"])

    def test_redis_by_its_sentinels(self):
        ports = []
        for _ in range(2):
            with socket.create_server(("127.0.0.1", 0)) as free:
                ports.append(free.getsockname()[1])
        master, sentinel = ports
        self.private_redis("--port", str(master), "--bind", "127.0.0.1", "--appendonly", "yes")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        config = pathlib.Path(folder.name) / "sentinel.conf"
        config.write_text(f"port {sentinel}\nbind 127.0.0.1\ndir {folder.name}\nsentinel monitor calls 127.0.0.1 {master} 1\n")
        process = subprocess.Popen(["redis-server", config, "--sentinel"], stdout=subprocess.DEVNULL)
        self.addCleanup(process.wait, 10)
        self.addCleanup(process.kill)
        deadline = time.monotonic() + 10
        while subprocess.run(["redis-cli", "-p", str(sentinel), "ping"], capture_output=True, check=False).returncode:
            self.assertLess(time.monotonic(), deadline)
        names = {"PARLEY_REDIS_MASTER_NAME": "calls"}
        found = self.doctor("--redis-sentinels", f"127.0.0.1:{sentinel}", code=0, env=names)
        self.assertIn("calls of sentinels", found["redis"]["detail"])
        self.assertEqual((found["redis"]["level"], found["redis durability"]["level"]), ("ok", "ok"))
        found = self.doctor(code=0, env={**names, "PARLEY_REDIS_SENTINELS": f"127.0.0.1:{sentinel}"})
        self.assertEqual(found["redis"]["level"], "ok")
        found = self.doctor("--redis-sentinels", f"127.0.0.1:{sentinel}", code=1)  # which know no "mymaster"
        self.assertEqual(found["redis"]["level"], "fail")
        self.assertIn("Sentinels", found["redis"]["fix"])

    def test_the_key_pair_of_the_keys_file_where_there_is_no_other(self):
        by_name = {"PARLEY_SERVER": self.dev.url.replace("127.0.0.1", "LOCALHOST")}  # not taken for loopback, so no pair goes by itself
        elsewhere = ("--redis", self.redis, "--keys-file")
        pair = self.keys(GOOD_KEYS.replace("APIone", "devkey").replace("s" * 64, "secret"))
        found = self.doctor(*elsewhere, pair, code=1, env=by_name)
        self.assertEqual((found["credentials"]["level"], found["keys"]["level"]), ("ok", "fail"))
        found = self.doctor(*elsewhere, self.keys(GOOD_KEYS), code=1, env=by_name)
        self.assertEqual(found["credentials"]["level"], "fail")

    def test_a_key_pair_that_is_refused(self):
        found = self.doctor("--redis", self.redis, code=1, env={"PARLEY_API_KEY": "APIother", "PARLEY_API_SECRET": "x" * 64})
        self.assertEqual(found["credentials"]["level"], "fail")


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0]], verbosity=2)
