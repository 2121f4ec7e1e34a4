#!/usr/bin/env python3
"""The workers' moves of docs/migrate-from-livekit.md, word for word but for the address: each block of the page that says so is run."""
import os
import pathlib
import re
import signal
import subprocess
import unittest
import urllib.error

from workers_test import BUILD, Cases, environment

SOURCE = pathlib.Path(os.environ["PARLEY_SOURCE_DIR"])
BLOCK = re.compile(r"<!-- run by tests/livekit_workers/migrate_test\.py: ([^\n]+) -->\n```\w+\n(.*?)```", re.S)
BLOCKS = dict(BLOCK.findall((SOURCE / "docs/migrate-from-livekit.md").read_text()))
VENV = BUILD / "python/venv/bin"


class Move(Cases):
    def setUp(self):
        self.folder = pathlib.Path(self.cluster.folder.name)

    def put(self, name, folder=None):
        path = (folder or self.folder) / name
        path.write_text(self.here(name))
        return path

    def here(self, name):
        """The block, at the address of this test's cluster."""
        return BLOCKS[name].replace("127.0.0.1:7880", self.cluster.where["api-server"])

    def shell(self, block, folder):
        """Runs the block as its reader does."""
        log = open(self.folder / "worker.log", "wb")
        worker = subprocess.Popen(["sh", "-ec", self.here(block)], stdout=log, stderr=log, cwd=folder, start_new_session=True,
                                  env=environment({"PATH": f"{VENV}:{os.environ['PATH']}"}))

        def end():
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
            log.close()
        self.addCleanup(end)
        self.eventually(lambda: self.registered("greeter"), 90,
                        "the worker did not register:\n" + (self.folder / "worker.log").read_text(errors="replace")[-3000:])

    def greets(self):
        self.put("ask.py")
        asked = subprocess.run([VENV / "python", self.folder / "ask.py"], capture_output=True, text=True, timeout=60, env=environment({}))
        self.assertEqual(asked.returncode, 0, asked.stderr)
        dispatch = asked.stdout.strip()
        job = self.state(dispatch, "RUNNING", 60)
        self.assertEqual(job["agentName"], "greeter")
        greets = self.eventually(self.greeting, 60, "the agent did not greet:\n"
                                 + (self.folder / "worker.log").read_text(errors="replace")[-3000:])
        self.assertEqual(greets, "table 4")

    def greeting(self):
        try:
            people = self.cluster.twirp("RoomService/ListParticipants", {"room": "lobby"}, "lobby")["participants"]
        except urllib.error.HTTPError:  # no room yet
            return None
        return next((one["attributes"].get("greets") for one in people if one["kind"] == "AGENT"), None)


class PythonMove(Move, unittest.TestCase):
    def test_a_python_worker_moves(self):
        self.put("agent.py")
        self.shell("python worker", self.folder)
        self.greets()


class NodeMove(Move, unittest.TestCase):
    def test_a_node_worker_moves(self):
        folder = BUILD / "node"  # beside its packages
        path = self.put("agent.js", folder)
        self.addCleanup(path.unlink)
        self.shell("node worker", folder)
        self.greets()


if __name__ == "__main__":
    unittest.main()
