"""The sidecar that carries TLS to Redis: a real stunnel with the chart's own configuration, a real redis-server that speaks TLS
only, a real service that reads and writes through it. Usage: redis_tls_test.py SOURCE_DIR BIN_DIR"""
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
import urllib.error
import urllib.request

SOURCE, BIN = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
sys.path.insert(0, str(SOURCE / "k8s"))
import render  # noqa: E402

STUNNEL = shutil.which("stunnel4") or shutil.which("stunnel")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(*command):
    subprocess.run(command, check=True, capture_output=True, timeout=30)


def status(url):
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


class RedisTlsTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.path = pathlib.Path(self.folder.name)
        run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=ca", "-keyout", self.path / "ca.key",
            "-out", self.path / "ca.crt")
        run("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=redis.test", "-addext", "subjectAltName=DNS:redis.test",
            "-keyout", self.path / "redis.key", "-out", self.path / "redis.csr")
        (self.path / "names").write_text("subjectAltName=DNS:redis.test\n")
        run("openssl", "x509", "-req", "-in", self.path / "redis.csr", "-CA", self.path / "ca.crt", "-CAkey", self.path / "ca.key",
            "-CAcreateserial", "-days", "1", "-extfile", self.path / "names", "-out", self.path / "redis.crt")
        self.redis_port = free_port()
        self.start("redis-server", "--port", "0", "--tls-port", self.redis_port, "--bind", "127.0.0.1", "--save", "", "--tls-auth-clients",
                   "no", "--tls-cert-file", self.path / "redis.crt", "--tls-key-file", self.path / "redis.key", "--tls-ca-cert-file",
                   self.path / "ca.crt", "--dir", self.path)
        self.wait(lambda: self.connects(self.redis_port), "redis-server")

    def start(self, *command):
        log = open(self.path / (pathlib.Path(str(command[0])).name + ".log"), "wb")  # pylint: disable=consider-using-with
        environment = {k: v for k, v in os.environ.items() if not re.match("PARLEY_|LIVEKIT_", k)}
        process = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log, env=environment)
        log.close()
        self.addCleanup(process.wait, 10)
        self.addCleanup(process.kill)

    def logs(self):
        return "\n".join(f"{p.name}: {p.read_text(errors='replace')[-1500:]}" for p in self.path.glob("*.log"))

    def wait(self, condition, what, seconds=10):
        deadline = time.monotonic() + seconds
        while not condition():
            self.assertLess(time.monotonic(), deadline, f"{what} does not answer\n{self.logs()}")
            time.sleep(0.05)

    @staticmethod
    def connects(port):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    def start_tunnel(self, server_name):
        """The chart's own stunnel.conf, with the ports and paths of this test."""
        values = {"redis": {"mode": "external", "address": f"127.0.0.1:{self.redis_port}", "tls": {"enabled": True, "serverName": server_name}}}
        (config,) = [o["data"]["stunnel.conf"] for o in render.render(values) if o["kind"] == "ConfigMap" and o["metadata"]["name"] == "redis-tls"]
        port = free_port()
        self.assertIn("/etc/redis-ca/", config)
        config = config.replace("127.0.0.1:6379", f"127.0.0.1:{port}").replace("/etc/redis-ca/", f"{self.path}/")
        (self.path / "stunnel.conf").write_text(config)
        self.start(STUNNEL, self.path / "stunnel.conf")
        self.wait(lambda: self.connects(port), "stunnel")
        return port

    def start_registry(self, redis_port):
        grpc, admin = free_port(), free_port()
        self.start(BIN / "parley-agent-registry", "--dev", "--grpc-port", grpc, "--admin-port", admin, "--redis-address",
                   f"127.0.0.1:{redis_port}")
        self.wait(lambda: status(f"http://127.0.0.1:{admin}/healthz") == 200, "parley-agent-registry")
        return f"http://127.0.0.1:{admin}/readyz"

    def test_a_service_reaches_redis_through_the_sidecar(self):
        ready = self.start_registry(self.start_tunnel("redis.test"))
        self.wait(lambda: status(ready) == 200, "Redis through the sidecar")

    def test_a_server_of_another_name_is_refused(self):
        ready = self.start_registry(self.start_tunnel("other.test"))
        tunnel = self.path / (pathlib.Path(STUNNEL).name + ".log")
        self.wait(lambda: "other.test" in tunnel.read_text() or "certificate" in tunnel.read_text().lower(), "the refusal in stunnel's log")
        self.assertEqual(status(ready), 503)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0]], verbosity=2)
