#!/usr/bin/env python3
"""A person in a browser talks to an agent: headless Chromium with the published livekit-client, against `parley dev`."""
import json
import os
import shutil
import sys
import tempfile
import unittest
import urllib.request

sys.path.insert(0, os.path.join(os.environ["PARLEY_SOURCE_DIR"], "tests", "e2e"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import cluster  # noqa: E402
from browser_call import BrowserCall  # noqa: E402
from pages import CHROMIUM, CLIENT  # noqa: E402


@unittest.skipUnless(CHROMIUM and CLIENT.exists(), "no chromium here, or no npm that brings livekit-client")
class TalkTest(BrowserCall, unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.dev = cluster.Dev()
        self.addCleanup(self.dev.close)
        self.dev.start()

    def details(self, agent):
        body = {"participant_identity": "ann", "room_config": {"agents": [{"agent_name": agent}]}}
        request = urllib.request.Request(self.dev.url + "/api/connection-details", json.dumps(body).encode(),
                                         {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def test_a_question_is_understood_and_answered_aloud(self):
        details = self.details("front-desk")
        self.ask_in_a_browser("ann", details["server_url"], details["participant_token"], lambda: self.dev.log()[-5000:])


if __name__ == "__main__":
    unittest.main(verbosity=2)
