#!/usr/bin/env python3
"""An unmodified voice agent of LiveKit's package holds a conversation with a caller of LiveKit's SDK in our room."""
import json
import subprocess
import time
import unittest

from workers_test import BUILD, HERE, PYTHON, Cases, environment, token

ROOM = "music"


class VoiceTest(Cases, unittest.TestCase):
    command = [PYTHON[0], str(HERE / "voice_agent.py"), "start"]

    def test_it_understands_answers_and_remembers(self):
        worker = self.start("singer")
        ann = token({"roomJoin": True, "room": ROOM}, sub="ann", roomConfig={"agents": [{"agentName": "singer"}]})
        began = time.monotonic()
        done = subprocess.run([BUILD / "python/venv/bin/python", HERE / "voice_caller.py", self.cluster.url, ann], capture_output=True,
                              text=True, timeout=150, env=environment({}))
        self.assertEqual(done.returncode, 0, f"{done.stdout}\n{done.stderr[-2000:]}\n{worker.log()[-4000:]}")
        seen = json.loads(done.stdout.strip().splitlines()[-1])
        print(json.dumps(seen), f"{time.monotonic() - began:.1f} s")
        # Both sides stand in the room's transcript, in the order in which they were said; what a caller says first as a guess.
        said = dict.fromkeys((who == "ann", text) for who, text in seen["texts"] if text.startswith(("tone", "That")))
        self.assertEqual([text for mine, text in said if mine], ["tone 500", "tone 700"])
        self.assertEqual([text for mine, text in said if not mine], ["That makes 500.", "That makes 1200."])
        self.assertIn("Hello, 300.", [text for who, text in seen["texts"] if who == seen["agent"]])
        self.assertLessEqual({"listening", "thinking", "speaking"}, set(seen["states"]))
        (job,) = self.cluster.call("GET", f"/api/jobs?room={ROOM}")["jobs"]
        self.assertEqual(seen["agent"], f"agent-{job['id']}")
        self.eventually(lambda: self.cluster.call("GET", f"/api/jobs?room={ROOM}")["jobs"][0]["state"] == "SUCCEEDED", 30,
                        "the job does not end with the call")


if __name__ == "__main__":
    unittest.main(verbosity=2)
