#!/usr/bin/env python3
"""Two clusters: one is a LiveKit server to the other, whose agents take its jobs and sit in its rooms."""
import json
import os
import pathlib
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.dirname(__file__))
import cluster  # noqa: E402
from cluster import data  # noqa: E402

CONFIG = """url: ws://127.0.0.1:{port}
api_key: devkey
api_secret: secret
agents: [front-desk]
"""


class AttachTest(unittest.TestCase):
    def setUp(self):
        self.theirs = cluster.Dev()
        self.addCleanup(self.theirs.close)
        self.theirs.start(examples=False)
        self.ours = cluster.Dev()
        self.addCleanup(self.ours.close)

    def attach(self, *arguments, mode=0o600):
        path = pathlib.Path(self.ours.folder.name) / "attach.yaml"
        path.write_text(CONFIG.format(port=7880 + self.theirs.offset))
        path.chmod(mode)
        self.ours.start("--attach", path, *arguments)

    def call(self, *arguments):
        return self.theirs.run("--json", "call", "--agent", "front-desk", "--wait", "30s", *arguments)

    def ok(self, result):
        self.assertEqual(result.returncode, 0, f"{result.stdout}\n{result.stderr}\ntheirs:\n{self.theirs.log()[-3000:]}\n"
                                               f"ours:\n{self.ours.log()[-3000:]}")
        return data(result)

    def jobs(self, dev):
        return [(job["agentName"], job["state"]) for job in data(dev.run("--json", "jobs", "list"))]

    def wait_for(self, what, seen):
        deadline = time.monotonic() + 15
        while not what(seen()):
            self.assertLess(time.monotonic(), deadline, f"{seen()}\ntheirs:\n{self.theirs.log()[-2000:]}\n"
                                                        f"ours:\n{self.ours.log()[-3000:]}")
            time.sleep(0.1)

    def test_a_spoken_call_in_their_room_is_answered_by_our_agent(self):
        self.attach()
        answer = self.ok(self.call("--say", "how much is a single room", "--expect", "single room is 80 euros"))
        self.assertEqual(answer["greeting"], "Good day, how can I help?")
        self.assertEqual(answer["turns"][0]["heard"], "how much is a single room")
        print("call:", json.dumps(answer["turns"][0]))
        for dev in (self.theirs, self.ours):  # each has it as a job of its own, and both say how it ended
            self.wait_for(lambda jobs: jobs == [("front-desk", "SUCCEEDED")], lambda dev=dev: self.jobs(dev))

    def test_one_free_slot_takes_one_call_at_a_time_and_a_restart_is_survived(self):
        self.attach("--slots", 1)
        results = []
        callers = [threading.Thread(target=lambda: results.append(self.call("--text", "what does a suite cost")))
                   for _ in range(2)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        for result in results:
            self.assertIn("250 euros", self.ok(result)["turns"][0]["answer"])
        self.assertEqual(self.theirs.stop(), 0)
        self.theirs.start(examples=False)
        answer = self.ok(self.call("--text", "what does a suite cost"))
        self.assertIn("250 euros", answer["turns"][0]["answer"])
        self.assertEqual(self.ours.stop(), 0)

    def test_a_file_that_others_may_read_stops_the_start(self):
        with self.assertRaises(RuntimeError) as raised:
            self.attach(mode=0o644)
        self.assertIn("chmod 600", str(raised.exception))


if __name__ == "__main__":
    unittest.main(verbosity=2)
