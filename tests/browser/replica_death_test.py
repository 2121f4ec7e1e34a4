#!/usr/bin/env python3
"""The room server that a browser's call is on is killed, or stands still, its connections open: the published livekit-client comes
back by itself, at another room server, to the agent that it talked with and to no second one."""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.parse
import urllib.request
import wave

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import pages  # noqa: E402

SERVICES = ("agent-registry", "dispatch-broker", "room-server", "room-server-2", "stt-gateway", "tts-gateway",
            "llm-gateway", "api-server")
AGENT = {"id": "memory", "instructions": "Remember.", "stt": [{"engine": "scripted"}], "llm": [{"engine": "scripted"}],
         "tts": [{"engine": "scripted"}]}
SCRIPT = {"llm": {"delay": "20ms", "answers": [{"when": "before", "text": "You said {earlier}."}, {"text": "Noted."}]},
          "tts": {"delay": "30ms", "per_character": "10ms"}}


@unittest.skipUnless(pages.CHROMIUM, "no chromium here")
class ReplicaDeathTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        script = f"{self.folder}/script.json"
        with open(script, "w") as file:
            json.dump(SCRIPT, file)
        more = [f"--argument={kind}-gateway:{one}" for kind in ("stt", "tts", "llm") for one in (f"--{kind}-script", script)]
        self.cluster = subprocess.Popen(
            [os.path.join(os.environ["PARLEY_BIN_DIR"], "parley-test-cluster"), "--agent-servers", "1",
             "--services", ",".join(SERVICES), "--work-dir", self.folder, *more],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.addCleanup(self.end_cluster)
        self.where = json.loads(self.cluster.stdout.readline() or "{}")
        with wave.open(f"{self.folder}/microphone.wav", "wb") as silence:  # or the recogniser hears words
            silence.setnchannels(1)
            silence.setsampwidth(2)
            silence.setframerate(48000)
            silence.writeframes(bytes(96_000))
        self.pages = pages.Pages("room.html")
        self.addCleanup(self.pages.close)
        admin = pages.token({"iss": "devkey", "sub": "test", "nbf": int(time.time()) - 10, "exp": int(time.time()) + 600,
                             "agent": {"admin": True}, "video": {"roomCreate": True, "roomList": True}})
        self.admin = {"authorization": "Bearer " + admin, "content-type": "application/json"}

    def end_cluster(self):
        self.cluster.stdin.close()
        self.cluster.wait(30)
        self.cluster.stdout.close()

    def call(self, method, path, body=None):
        request = urllib.request.Request(f"http://{self.where['api-server']}{path}", method=method, headers=self.admin,
                                         data=None if body is None else json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def claims(self, name, room):
        return {"iss": "devkey", "sub": name, "nbf": int(time.time()) - 10, "exp": int(time.time()) + 600,
                "video": {"roomJoin": True, "room": room}, "roomConfig": {"agents": [{"agentName": "memory"}]}}

    def open(self, name, room, single):
        url = f"http://127.0.0.1:{self.pages.port}/?" + urllib.parse.urlencode(
            {"name": name, "single": int(single), "url": "ws://" + self.where["api-server"],
             "token": pages.token(self.claims(name, room))})
        browser = pages.browser(url, f"{self.folder}/microphone.wav", self.folder)

        def end():
            browser.kill()
            browser.wait()
        self.addCleanup(end)
        self.pages.wait(lambda e: e["what"] == "ready", 40, f"{name} is there")
        self.pages.do(name, "join", seconds=40)

    def ask(self, text, expected, seconds):
        """Says it again and again, since nobody may be there to hear it; until an agent's answer has `expected`."""
        end, mark = time.monotonic() + seconds, self.pages.mark()
        while True:
            self.pages.begin("ann", "say", text)
            try:
                return self.pages.wait(lambda e: e["what"] == "transcript" and e["who"].startswith("agent") and
                                       expected in e["text"], 1.5, f"an answer with {expected}", mark)
            except AssertionError:
                if time.monotonic() > end:
                    raise

    def room(self, name):
        return next(one for one in self.call("GET", "/api/rooms")["rooms"] if one["name"] == name)

    def test_one_connection(self):
        self.run_death("kill", True)

    def test_two_connections(self):
        self.run_death("kill", False)

    def test_one_that_says_nothing(self):
        self.run_death("freeze", True)

    def tell_cluster(self, line):
        self.cluster.stdin.write(line + "\n")
        self.cluster.stdin.flush()
        self.assertEqual(self.cluster.stdout.readline(), "ok\n")

    def run_death(self, how, single):
        self.call("POST", "/api/agents/register", AGENT)
        self.open("ann", "lobby", single)
        self.pages.do("ann", "microphone", True)
        self.pages.wait(lambda e: e["what"] == "subscribed" and e["who"].startswith("agent"), 30, "ann hears the agent")
        self.ask("my word is pearl", "Noted", 20)
        agents = [one for one in self.pages.do("ann", "others") if one.startswith("agent")]
        before = self.room("lobby")
        holder = next(name for name in ("room-server", "room-server-2") if self.where[name] == before["mediaUrl"])
        mark, begin = self.pages.mark(), time.monotonic()
        self.tell_cluster(f"{how} {holder}")
        if how == "freeze":
            self.addCleanup(self.tell_cluster, f"thaw {holder}")
        self.pages.wait(lambda e: e["what"] == "reconnected", 40, "livekit-client is back", mark)
        back = time.monotonic() - begin
        answer = self.ask("what did I say before", "my word is pearl", 30)
        print(f"back {back:.1f} s after the {how}, answered {time.monotonic() - begin:.1f} s after it: {answer['text']}")
        after = self.room("lobby")
        self.assertEqual(after["sid"], before["sid"])
        self.assertNotEqual(after["mediaUrl"], before["mediaUrl"])
        first = self.pages.do("ann", "heard").get(agents[0], {}).get("packets", 0)
        for _ in range(10):
            self.assertEqual([one for one in self.pages.do("ann", "others") if one.startswith("agent")], agents)
            time.sleep(0.3)
        self.ask("what did I say before", "You said", 10)
        self.assertGreater(self.pages.do("ann", "heard")[agents[0]]["packets"], first, "and it is heard")
        jobs = self.call("GET", "/api/jobs?room=lobby")["jobs"]
        self.assertEqual([(job["state"], job["attempt"]) for job in jobs], [("RUNNING", 1)], jobs)
        self.assertEqual([e for e in self.pages.events[mark:] if e["what"] == "disconnected"], [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
