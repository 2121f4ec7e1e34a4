#!/usr/bin/env python3
"""Two participants with the published Python SDK and an agent in one room, against `parley dev`."""
import json
import os
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.environ["PARLEY_SOURCE_DIR"], "tests", "e2e"))
import cluster  # noqa: E402

BUILD = os.environ["PARLEY_BUILD_DIR"]
HERE = os.path.dirname(os.path.abspath(__file__))
QUESTION = "how much is a single room"


class PythonSdkTest(unittest.TestCase):
    def test_two_of_them_and_an_agent_talk(self):
        dev = cluster.Dev()
        self.addCleanup(dev.close)
        dev.start()
        words = os.path.join(dev.folder.name, "words.wav")
        spoken = dev.run("tts", QUESTION, "--voice", "rms", "--out", words)
        self.assertEqual(spoken.returncode, 0, spoken.stderr)
        result = subprocess.run([f"{BUILD}/browser/venv/bin/python", f"{HERE}/python_sdk.py", dev.url, words],
                                capture_output=True, text=True, timeout=200, env=cluster.clean_environment())
        errors = "\n".join(line for line in result.stderr.splitlines() if "error putting to queue" not in line)
        self.assertEqual(result.returncode, 0, f"{result.stdout}\n{errors[-3000:]}\n{dev.log()[-3000:]}")
        seen = json.loads(result.stdout.strip().splitlines()[-1])
        print(json.dumps(seen))
        for name in ("ann", "bob"):
            self.assertIn([QUESTION], [[text] for text in seen[name]["said"]["ann"]])
        self.assertEqual(dev.stop(), 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
