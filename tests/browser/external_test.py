#!/usr/bin/env python3
"""LiveKit's own server, unmodified: our agents register there as workers, take its jobs, and talk in its rooms."""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.join(os.environ["PARLEY_SOURCE_DIR"], "tests", "e2e"))
import cluster  # noqa: E402
from browser_call import QUESTION, BrowserCall  # noqa: E402
from livekit_server import KEY, SECRET, LivekitServer, token  # noqa: E402
from pages import CHROMIUM  # noqa: E402

BUILD = os.environ["PARLEY_BUILD_DIR"]
HERE = os.path.dirname(os.path.abspath(__file__))


class Attached(unittest.TestCase):
    """A livekit-server, and `parley dev` that registers there."""

    def setUp(self):
        self.livekit = LivekitServer()
        self.addCleanup(self.livekit.close)
        self.livekit.start()
        self.dev = cluster.Dev()
        self.addCleanup(self.dev.close)
        attach = pathlib.Path(self.dev.folder.name) / "attach.yaml"
        attach.write_text(f"url: {self.livekit.url}\napi_key: {KEY}\napi_secret: {SECRET}\nagents: [front-desk]\n")
        attach.chmod(0o600)
        self.dev.start("--attach", attach)
        self.wait_for(lambda: "registered at another LiveKit server" in self.dev.log(), "the registration")

    def logs(self):
        return f"livekit:\n{self.livekit.log()[-3000:]}\nours:\n{self.dev.log()[-3000:]}"

    def wait_for(self, condition, what):
        deadline = time.monotonic() + 20
        while not condition():
            self.assertLess(time.monotonic(), deadline, f"{what} did not happen\n{self.logs()}")
            time.sleep(0.1)

    def jobs(self):
        return [job["state"] for job in cluster.data(self.dev.run("--json", "jobs", "list"))]

    @staticmethod
    def guest(name):
        """A token of somebody with whom our agent comes."""
        return token({"sub": name, "video": {"roomJoin": True, "room": "hotel"},
                      "roomConfig": {"agents": [{"agentName": "front-desk"}]}})

    def both_know_of_success(self):
        self.wait_for(lambda: self.jobs() == ["SUCCEEDED"], "the end of our job")
        self.wait_for(lambda: "JS_SUCCESS" in self.dev.log(), "the report")


@unittest.skipUnless(CHROMIUM, "no chromium here")
class BrowserTest(BrowserCall, Attached):
    def test_our_agent_talks_with_a_browser_in_its_room(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.ask_in_a_browser("ann", self.livekit.url, self.guest("ann"), self.logs)
        self.both_know_of_success()


class ExternalTest(Attached):
    def test_our_agent_talks_in_its_room(self):
        words = os.path.join(self.dev.folder.name, "words.wav")
        spoken = self.dev.run("tts", QUESTION, "--voice", "rms", "--out", words)
        self.assertEqual(spoken.returncode, 0, spoken.stderr)
        result = subprocess.run([f"{BUILD}/browser/venv/bin/python", f"{HERE}/external_sdk.py", self.livekit.url, self.guest("ann"), words],
                                capture_output=True, text=True, timeout=120, env=cluster.clean_environment())
        self.assertEqual(result.returncode, 0, f"{result.stdout}\n{result.stderr[-2000:]}\n{self.logs()}")
        seen = json.loads(result.stdout.strip().splitlines()[-1])
        print(json.dumps(seen))
        self.assertIn([QUESTION], [[text] for text in seen["said"]["ann"]])
        self.assertEqual(seen["agent"][2]["lk.agent.state"], "listening")
        self.both_know_of_success()

    def test_a_deleted_dispatch_ends_the_job(self):
        grants = {"roomCreate": True, "roomAdmin": True, "room": "empty"}
        self.livekit.twirp("RoomService/CreateRoom", grants, {"name": "empty"})
        made = self.livekit.twirp("AgentDispatchService/CreateDispatch", grants,
                                  {"agent_name": "front-desk", "room": "empty", "metadata": "m"})
        self.wait_for(lambda: self.jobs() == ["RUNNING"], "our job")
        seen = self.livekit.twirp("RoomService/ListParticipants", grants, {"room": "empty"})["participants"]
        self.assertEqual([person["kind"] for person in seen], ["AGENT"])
        self.livekit.twirp("AgentDispatchService/DeleteDispatch", grants, {"dispatch_id": made["id"], "room": "empty"})
        self.wait_for(lambda: self.jobs()[0] in ("CANCELLED", "SUCCEEDED"), "the end of our job")
        self.wait_for(lambda: not self.livekit.twirp("RoomService/ListParticipants", grants, {"room": "empty"})["participants"],
                      "the agent's leaving")

    def test_its_restart_is_survived(self):
        self.livekit.stop()
        self.livekit.start()
        self.wait_for(lambda: self.dev.log().count("registered at another LiveKit server") == 2, "the second registration")
        self.test_a_deleted_dispatch_ends_the_job()


if __name__ == "__main__":
    unittest.main(verbosity=2)
