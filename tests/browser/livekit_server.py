"""A LiveKit server of its own for a test: LiveKit's, from its Go module (scripts/livekit-server), on free ports of loopback."""
import base64
import hashlib
import hmac
import json
import os
import pathlib
import socket
import subprocess
import tempfile
import time
import urllib.request

KEY, SECRET = "APIexternal", "a-secret-of-the-external-livekit-server"
CONFIG = """port: {port}
bind_addresses: ["127.0.0.1"]
rtc: {{udp_port: {udp}, tcp_port: {tcp}, use_external_ip: false, enable_loopback_candidate: true}}
keys: {{{key}: {secret}}}
"""


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def token(claims, ttl=600):
    """A JWT of LiveKit's: `claims` go over the usual ones."""
    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")
    now = int(time.time())
    text = part({"alg": "HS256", "typ": "JWT"}) + b"." + part({"iss": KEY, "nbf": now - 5, "exp": now + ttl, **claims})
    digest = hmac.new(SECRET.encode(), text, hashlib.sha256).digest()
    return (text + b"." + base64.urlsafe_b64encode(digest).rstrip(b"=")).decode()


class LivekitServer:
    """Runs from start() to close()."""

    def __init__(self):
        script = pathlib.Path(os.environ["PARLEY_SOURCE_DIR"]) / "scripts" / "livekit-server"
        self.binary = subprocess.run([script], capture_output=True, text=True, check=True).stdout.strip()
        self.folder = tempfile.TemporaryDirectory()
        self.port, self.tcp, self.udp = free_port(), free_port(), free_port(socket.SOCK_DGRAM)
        self.url = f"ws://127.0.0.1:{self.port}"
        self.log_path = pathlib.Path(self.folder.name) / "livekit.log"
        self.process = None

    def start(self):
        config = pathlib.Path(self.folder.name) / "livekit.yaml"
        config.write_text(CONFIG.format(port=self.port, udp=self.udp, tcp=self.tcp, key=KEY, secret=SECRET))
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen([self.binary, "--config", str(config), "--node-ip", "127.0.0.1"],
                                            stdout=log, stderr=log)
        deadline = time.monotonic() + 20
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=1) as answer:
                    if answer.status == 200:
                        return
            except OSError:
                pass
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("livekit-server did not start:\n" + self.log()[-2000:])
            time.sleep(0.1)

    def stop(self):
        self.process.terminate()
        self.process.wait(20)

    def twirp(self, method, claims, body):
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/twirp/livekit.{method}", json.dumps(body).encode(),
            {"content-type": "application/json", "authorization": "Bearer " + token({"video": claims})})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def log(self):
        return self.log_path.read_text(errors="replace")

    def close(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.folder.cleanup()
