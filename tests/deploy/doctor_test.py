"""parley doctor: finds nothing wrong in a healthy cluster, and each thing that is. Usage: doctor_test.py SOURCE_DIR"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
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
                     "tts-gateway", "llm-gateway", "agent-registry", "api-server", "credentials", "capacity of default", "versions"):
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

    def test_a_key_pair_that_is_refused(self):
        found = self.doctor("--redis", self.redis, code=1, env={"PARLEY_API_KEY": "APIother", "PARLEY_API_SECRET": "x" * 64})
        self.assertEqual(found["credentials"]["level"], "fail")


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0]], verbosity=2)
