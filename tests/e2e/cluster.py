"""A `parley dev` of its own for a test: free ports, a copy of the examples that points at them, everything gone at the end."""
import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import tempfile
import time

BIN = pathlib.Path(os.environ["PARLEY_BIN_DIR"])
SOURCE = pathlib.Path(os.environ["PARLEY_SOURCE_DIR"])
PARLEY = str(BIN / "parley")
PORTS = (7100, 7101, 7102, 7103, 7104, 7105, 7106, 7880, 7881, 7882, 8080, 8081, 8100, 8101, 8102, 8103, 8104, 8105, 9080, 9081)


def free_offset():
    """An offset at which every default port is free on loopback."""
    for _ in range(200):
        offset = random.randrange(12_000, 22_000)  # below the ports that connections get
        sockets = []
        try:
            for port in PORTS:
                probe = socket.socket()
                sockets.append(probe)
                probe.bind(("127.0.0.1", port + offset))
            return offset
        except OSError:
            continue
        finally:
            for probe in sockets:
                probe.close()
    raise RuntimeError("no free ports")


class Dev:
    """Runs from start() to stop(); `url` is the HTTP API."""

    def __init__(self):
        self.offset = free_offset()
        self.url = f"http://127.0.0.1:{8080 + self.offset}"
        self.folder = tempfile.TemporaryDirectory()
        self.log_path = pathlib.Path(self.folder.name) / "dev.log"
        self.process = None

    def start(self, *arguments, examples=True, env=None):
        agents = pathlib.Path(self.folder.name) / "agents"
        agents.mkdir(exist_ok=True)
        for path in (SOURCE / "examples").glob("*.yaml") if examples else ():
            (agents / path.name).write_text(path.read_text().replace(":8080/", f":{8080 + self.offset}/"))
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [PARLEY, "dev", "--port-offset", str(self.offset), "--agents", str(agents), *map(str, arguments)],
                stdout=log, stderr=log, cwd=self.folder.name, env=clean_environment(env))
        deadline = time.monotonic() + 30
        starts = self.log().count("Parley is up") + 1
        while self.log().count("Parley is up") < starts:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("parley dev did not start:\n" + self.log()[-3000:])
            time.sleep(0.05)

    def log(self):
        return self.log_path.read_text(errors="replace")

    def stop(self):
        """Ctrl-C; answers the exit code."""
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise RuntimeError("parley dev did not stop:\n" + self.log()[-3000:])

    def close(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.folder.cleanup()

    def run(self, *arguments, env=None, timeout=90, stdin=None):
        """The command line against this cluster."""
        return run(*arguments, env={"PARLEY_SERVER": self.url, **(env or {})}, timeout=timeout, stdin=stdin)


def clean_environment(extra=None):
    """Ours without anybody's Parley or LiveKit settings."""
    kept = {k: v for k, v in os.environ.items() if not re.match(r"(PARLEY|LIVEKIT)_", k)}
    return {**kept, **(extra or {})}


def run(*arguments, env=None, timeout=90, stdin=None):
    return subprocess.run([PARLEY, *map(str, arguments)], env=clean_environment(env), capture_output=True, text=True,
                          timeout=timeout, input=stdin)


def data(result):
    """What a command printed with --json."""
    return json.loads(result.stdout)
