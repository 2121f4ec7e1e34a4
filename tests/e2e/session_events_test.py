#!/usr/bin/env python3
"""A call is watched through /api/sessions/{id}/events, and counted by /api/metrics/summary; `/` is a page for browsers only."""
import base64
import hashlib
import hmac
import json
import os
import sys
import threading
import time
import unittest
import urllib.error
import urllib.request

sys.path.insert(0, os.path.dirname(__file__))
import cluster  # noqa: E402


def token(claims):
    """Signed with the development key."""
    encode = lambda part: base64.urlsafe_b64encode(part).rstrip(b"=")  # noqa: E731
    claims = {"iss": "devkey", "sub": "test", "exp": int(time.time()) + 600, **claims}
    text = encode(b'{"alg":"HS256","typ":"JWT"}') + b"." + encode(json.dumps(claims).encode())
    return (text + b"." + encode(hmac.new(b"secret", text, hashlib.sha256).digest())).decode()


ADMIN = token({"video": {"roomCreate": True, "roomList": True}, "agent": {"admin": True}})
LISTER = token({"video": {"roomList": True}})


class SessionEventsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dev = cluster.Dev()
        cls.addClassCleanup(cls.dev.close)
        cls.dev.start()

    def open(self, path, bearer=ADMIN, **headers):
        request = urllib.request.Request(self.dev.url + path, headers={"authorization": f"Bearer {bearer}", **headers})
        return urllib.request.urlopen(request, timeout=30)

    def get(self, path, bearer=ADMIN):
        with self.open(path, bearer) as answer:
            return json.load(answer)

    def until(self, seconds, what, check):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = check()
            if found:
                return found
            time.sleep(0.05)
        self.fail(f"not within {seconds} s: {what}\n{self.dev.log()[-3000:]}")

    def read(self, path, events):
        with self.open(path) as answer:
            self.assertEqual(answer.headers["content-type"], "text/event-stream")
            for line in answer:
                if line.startswith(b"data: "):
                    events.append(json.loads(line[6:]))

    def test_what_happens_in_a_call_is_told_until_it_has_ended(self):
        results = []
        call = threading.Thread(target=lambda: results.append(self.dev.run(
            "call", "--agent", "front-desk", "--room", "watched", "--text", "how much is a suite", "--text", "how much is a double room")))
        call.start()
        self.addCleanup(call.join)
        session = self.until(20, "the session", lambda: [
            one for one in self.get("/api/sessions")["sessions"] if one["room"] == "watched"])[0]
        summary = self.get("/api/metrics/summary")
        path = f"/api/sessions/{session['id']}/events"
        events = []
        reader = threading.Thread(target=lambda: self.read(path, events))
        reader.start()
        call.join()
        self.assertEqual(results[0].returncode, 0, results[0].stderr)
        reader.join(30)
        self.assertFalse(reader.is_alive(), "the stream ends with the session")

        told = [event["type"] for event in events]
        self.assertEqual(told[0], "session")
        self.assertEqual(events[0]["session"]["id"], session["id"])
        jobs = [event["event"]["type"] for event in events if event["type"] == "job"]
        self.assertEqual([jobs[0], jobs[-1]], ["dispatch_created", "dispatch_ended"])
        self.assertIn("job_running", jobs)
        states = [event["state"] for event in events if event["type"] == "agent"]
        self.assertIn("speaking", states)
        self.assertEqual(states[-1], "", "the agent left")
        finals = [event["text"] for event in events if event["type"] == "transcript" and event["final"]]
        self.assertTrue([text for text in finals if "250 euros" in text], finals)
        self.assertTrue([text for text in finals if "120 euros" in text], finals)
        turns = [event for event in events if event["type"] == "turn"]
        self.assertTrue(turns, told)
        for turn in turns:
            parts = sum(turn[part + "_ms"] for part in ("endpointing", "transcript", "llm", "tts", "output"))
            self.assertAlmostEqual(parts, turn["total_ms"], delta=1)

        self.assertEqual(summary["sessions"]["running"] + summary["sessions"]["pending"], 1)
        self.assertEqual(summary["workers"]["count"], 1)
        self.assertGreaterEqual(summary["workers"]["slots"], 1)
        self.assertGreaterEqual(summary["agents"], 1)
        self.assertTrue(summary["complete"])
        self.assertIsNone(self.get("/api/metrics/summary", LISTER)["agents"])

        # Of a session that is over: what is kept, and the end.
        past = []
        self.read(path, past)
        self.assertEqual([event["type"] for event in past][:2], ["session", "job"])
        self.assertEqual(past[-1]["event"]["type"], "dispatch_ended")
        with self.assertRaises(urllib.error.HTTPError) as refused:
            self.open(path, LISTER)
        self.assertEqual(refused.exception.code, 401)
        with self.assertRaises(urllib.error.HTTPError) as missing:
            self.open("/api/sessions/AS_nobody/events")
        self.assertEqual(missing.exception.code, 404)

    def test_a_watcher_is_seen_by_nobody_and_holds_no_room(self):
        body = json.dumps({"agent": "front-desk", "room": "quiet"}).encode()
        request = urllib.request.Request(self.dev.url + "/api/sessions", body, {"authorization": f"Bearer {ADMIN}"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            session = json.load(answer)
        events = []
        reader = threading.Thread(target=lambda: self.read(f"/api/sessions/{session['sessionId']}/events", events))
        reader.start()
        self.until(20, "an agent's state", lambda: [e for e in list(events) if e["type"] == "agent" and e["state"]])
        room = [one for one in self.get("/api/rooms")["rooms"] if one["name"] == "quiet"][0]
        self.assertEqual((room["numParticipants"], room["numAgents"]), (0, 1))
        request = urllib.request.Request(f"{self.dev.url}/api/sessions/{session['sessionId']}", method="DELETE",
                                         headers={"authorization": f"Bearer {ADMIN}"})
        urllib.request.urlopen(request, timeout=10).close()
        reader.join(30)
        self.assertFalse(reader.is_alive(), "the stream ends with the session")
        self.assertEqual(events[-1]["event"]["type"], "dispatch_ended")

    def test_browsers_get_the_page_and_others_health(self):
        with self.open("/", accept="text/html,application/xhtml+xml") as answer:
            self.assertIn(b"<title>Parley</title>", answer.read())
            self.assertIn("frame-ancestors 'none'", answer.headers["content-security-policy"])
        with self.open("/", accept="*/*") as answer:
            self.assertEqual(answer.read(), b"OK")
        with self.open("/console/console.css") as answer:
            self.assertEqual(answer.headers["content-type"], "text/css; charset=utf-8")
        for path in ("/console/index.htm", "/console/..%2fstamp", "/console/"):
            with self.assertRaises(urllib.error.HTTPError) as missing:
                self.open(path)
            self.assertEqual(missing.exception.code, 404, path)


if __name__ == "__main__":
    unittest.main(verbosity=2)
