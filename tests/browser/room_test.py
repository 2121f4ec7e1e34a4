#!/usr/bin/env python3
"""Two people, each in a browser, and an agent in one room, over each of the two signalling paths, with a network that breaks."""
import json
import os
import pathlib
import shutil
import sys
import tempfile
import time
import unittest
import urllib.parse

sys.path.insert(0, os.path.join(os.environ["PARLEY_SOURCE_DIR"], "tests", "e2e"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import cluster  # noqa: E402
import pages  # noqa: E402
from browser_call import ANSWER, QUESTION, with_silence  # noqa: E402

MEDIA_PORT = 7882


@unittest.skipUnless(pages.CHROMIUM, "no chromium here")
class RoomTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dev = cluster.Dev()
        cls.addClassCleanup(cls.dev.close)
        cls.dev.start()

    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.pages = pages.Pages("room.html")
        self.addCleanup(self.pages.close)
        self.gate = pages.Gate(MEDIA_PORT + self.dev.offset)
        self.addCleanup(self.gate.close)

    def url(self, name, room, single, agent=None):
        claims = {"iss": "devkey", "sub": name, "nbf": int(time.time()) - 10, "exp": int(time.time()) + 600,
                  "video": {"roomJoin": True, "room": room, "canUpdateOwnMetadata": True}}
        if agent:
            claims["roomConfig"] = {"agents": [{"agentName": agent}]}
        return f"http://127.0.0.1:{self.pages.port}/?" + urllib.parse.urlencode({
            "name": name, "single": int(single), "url": f"ws://127.0.0.1:{7880 + self.dev.offset}",
            "token": pages.token(claims), "gate": self.gate.port})

    def saw(self, page, what, seconds=15, since=0, **fields):
        return self.pages.wait(
            lambda e: e["page"] == page and e["what"] == what and all(e.get(k) == v for k, v in fields.items()),
            seconds, f"{page}: {what} {fields}", since)

    def packets(self, page, identity):
        return self.pages.do(page, "heard").get(identity, {}).get("packets", 0)

    def grows(self, page, identity, by, seconds):
        """`page` hears `identity`: at least so many packets more within that time."""
        begin, first = time.monotonic(), self.packets(page, identity)
        while self.packets(page, identity) < first + by:
            self.assertLess(time.monotonic(), begin + seconds, f"{page} does not hear {identity}\n{self.pages.told()}")
            time.sleep(0.2)

    def test_one_connection(self):
        self.run_room(True)

    def test_two_connections(self):
        self.run_room(False)

    def run_room(self, single):
        room = f"people-{int(single)}"
        logs = []
        # Each again and again: ann asks and waits for the answer, bob, whom the agent does not listen to, just speaks.
        for name, agent, text, quiet in (("ann", "front-desk", QUESTION, 5), ("bob", None, "one two three four five six", 0)):
            folder = f"{self.folder}/{name}-{room}"
            os.mkdir(folder)
            words, microphone = f"{folder}/words.wav", f"{folder}/microphone.wav"
            spoken = self.dev.run("tts", text, "--voice", "rms", "--out", words)
            self.assertEqual(spoken.returncode, 0, spoken.stderr)
            with_silence(words, microphone, 0, quiet)
            logs.append(pathlib.Path(folder, "chromium.log"))
            self.addCleanup(self.end, pages.browser(self.url(name, room, single, agent), microphone, folder))
        try:
            for part in (self.meet, self.talk, self.call, self.stay):
                part()
        except AssertionError as error:
            browsers = "\n".join(log.read_text(errors="replace")[-1000:] for log in logs)
            raise AssertionError(f"{error}\n--- chromium\n{browsers}\n--- cluster\n{self.dev.log()[-3000:]}") from None

    @staticmethod
    def end(chromium):
        chromium.kill()
        chromium.wait()

    def meet(self):
        for name in ("ann", "bob"):
            self.saw(name, "ready", 30)
            print(name, "joined:", json.dumps(self.pages.do(name, "join", seconds=30)))
        self.saw("ann", "joined", who="bob")
        agents = {self.pages.wait(lambda e: e["page"] == name and e["what"] == "subscribed" and
                                  e["who"].startswith("agent"), 30, f"{name} hears the agent")["who"]
                  for name in ("ann", "bob")}
        self.assertEqual(len(agents), 1)
        self.agent = agents.pop()
        self.assertEqual(self.pages.do("ann", "attributes", {"mood": "good"}), {})
        self.saw("bob", "attributes", who="ann", changed={"mood": "good"})
        self.pages.do("ann", "named", "Ann")
        self.saw("bob", "name", who="ann", to="Ann")
        self.saw("bob", "quality", who="bob", quality="excellent")

    def talk(self):
        self.pages.do("ann", "microphone", True)
        self.saw("bob", "subscribed", who="ann", kind="audio")
        self.grows("bob", "ann", 50, 10)
        self.pages.wait(lambda e: e["page"] == "bob" and e["what"] == "speakers" and "ann" in e["who"], 15,
                        "bob sees that ann speaks")
        mark = self.pages.mark()
        self.pages.do("ann", "microphone", False)
        self.saw("bob", "muted", who="ann", since=mark)
        self.pages.wait(lambda e: e["page"] == "bob" and e["what"] == "speakers" and "ann" not in e["who"], 5,
                        "bob sees that ann is silent", mark)
        mark = self.pages.mark()
        self.pages.do("ann", "microphone", True)
        self.saw("bob", "unmuted", who="ann", since=mark)
        self.grows("bob", "ann", 50, 10)
        self.pages.do("bob", "microphone", True)
        self.grows("ann", "bob", 50, 10)
        self.hear_the_agent(mark)

    def hear_the_agent(self, since):
        """What ann asks the agent answers, and both read and hear it."""
        for name in ("ann", "bob"):
            self.pages.wait(lambda e: e["page"] == name and e["what"] == "transcript" and e["who"] == self.agent
                            and ANSWER in e["text"], 40, f"{name} reads the answer", since)
            self.assertGreater(self.pages.do(name, "heard")[self.agent]["energy"], 0.001)

    def call(self):
        self.pages.do("ann", "text", "how do you do? " * 2000)  # several chunks
        got = self.saw("bob", "text", who="ann")
        self.assertEqual(got["text"], "how do you do? " * 2000)
        self.assertEqual(got["attributes"].get("mood"), "good")
        self.pages.do("bob", "file", [1, 2, 3] * 10_000)
        self.assertEqual(self.saw("ann", "file", who="bob", name="cat.png", mime="image/png")["bytes"], 30_000)
        self.pages.do("bob", "data", "a packet")
        self.saw("ann", "data", who="bob", topic="data", text="a packet")
        rpc = lambda page, to, method, payload: self.pages.do(  # noqa: E731
            page, "rpc", {"to": to, "method": method, "payload": payload})
        self.assertEqual(rpc("ann", "bob", "add", "[1, 2, 3]"), {"result": "6"})
        self.assertEqual(rpc("bob", "ann", "add", "[4]"), {"result": "4"})
        refused = rpc("ann", "bob", "add", "[]")
        self.assertEqual((refused["code"], refused["data"]), (1600, "details"))
        self.assertEqual(rpc("ann", "bob", "subtract", "[]")["code"], 1400)
        self.assertEqual(rpc("ann", "nobody", "add", "[]")["code"], 1401)

    def stay(self):
        # The path of the media is cut for 5 s: both, since both go through the gate.
        mark = self.pages.mark()
        self.gate.open = False
        time.sleep(5)
        self.gate.open = True
        begin = time.monotonic()
        self.grows("ann", "bob", 25, 30)
        print(f"heard again {time.monotonic() - begin:.1f} s after the path was back")
        self.hear_the_agent(self.pages.mark())
        self.assertEqual(self.pages.do("ann", "rpc", {"to": "bob", "method": "add", "payload": "[7]"}), {"result": "7"})
        self.never("disconnected", "left", since=mark)
        # The signalling connection breaks; audio never stops.
        mark = self.pages.mark()
        self.pages.begin("ann", "simulate", "signal-reconnect")
        self.saw("ann", "reconnected", 20, since=mark)
        self.grows("bob", "ann", 50, 10)
        self.pages.do("ann", "attributes", {"mood": "better"})
        self.saw("bob", "attributes", who="ann", changed={"mood": "better"}, since=mark)
        self.assertEqual(self.pages.do("bob", "rpc", {"to": "ann", "method": "add", "payload": "[8]"}), {"result": "8"})
        self.never("disconnected", "left", since=mark)
        mark = self.pages.mark()
        self.pages.do("ann", "leave")
        self.saw("bob", "left", who="ann", since=mark)

    def never(self, *kinds, since):
        with self.pages.changed:
            bad = [e for e in self.pages.events[since:] if e["what"] in kinds]
        self.assertEqual(bad, [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
