#!/usr/bin/env python3
"""A person in a browser talks to an agent: headless Chromium with the published livekit-client, against `parley dev`."""
import http.server
import json
import os
import pathlib
import shutil
import sys
import tempfile
import threading
import time
import unittest
import urllib.parse
import urllib.request
import wave

sys.path.insert(0, os.path.join(os.environ["PARLEY_SOURCE_DIR"], "tests", "e2e"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import cluster  # noqa: E402
from cluster import data  # noqa: E402
from pages import CHROMIUM, CLIENT, HERE, browser  # noqa: E402

QUESTION = "how much is a single room"


class Page:
    """Serves the page, and hears what it tells."""

    def __init__(self):
        self.events = []
        self.recording = None
        self.changed = threading.Condition()
        self.enough = threading.Event()
        page = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def answer(self, body=b"", kind="text/plain"):
                self.send_response(200)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self):
                path = urllib.parse.urlparse(self.path).path
                if path == "/wait":
                    page.enough.wait(60)
                    return self.answer()
                if path == "/livekit-client.umd.js":
                    return self.answer(CLIENT.read_bytes(), "text/javascript")
                return self.answer((HERE / "talk.html").read_bytes(), "text/html")

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                with page.changed:
                    if self.path.startswith("/recording"):
                        page.recording = body
                    else:
                        page.events.append(json.loads(body))
                    page.changed.notify_all()
                self.answer()

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def wait(self, matches, seconds):
        """The first event that matches."""
        deadline = time.monotonic() + seconds
        with self.changed:
            while True:
                for event in self.events:
                    if matches(event):
                        return event
                    if event["what"] == "error":
                        raise AssertionError(f"the page failed: {event['message']}\n{self.told()}")
                if not self.changed.wait(deadline - time.monotonic()):
                    raise AssertionError(f"the page did not get there in {seconds} s:\n{self.told()}")

    def told(self):
        return "\n".join(json.dumps(event) for event in self.events if event["what"] != "stats")

    def close(self):
        self.enough.set()
        self.server.shutdown()
        self.server.server_close()


def with_silence(source, target, before, after):
    """The same words with quiet around them, as a microphone hears them."""
    with wave.open(str(source)) as wav:
        parameters, frames = wav.getparams(), wav.readframes(wav.getnframes())
    silence = b"\0\0" * parameters.framerate
    with wave.open(str(target), "wb") as wav:
        wav.setparams(parameters)
        wav.writeframes(silence * before + frames + silence * after)


@unittest.skipUnless(CHROMIUM, "no chromium here")
class TalkTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.dev = cluster.Dev()
        self.addCleanup(self.dev.close)
        self.dev.start()
        self.page = Page()
        self.addCleanup(self.page.close)

    def ok(self, *arguments):
        result = self.dev.run(*arguments)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result

    def token(self, agent):
        body = {"participant_identity": "ann", "room_config": {"agents": [{"agent_name": agent}]}}
        request = urllib.request.Request(self.dev.url + "/api/connection-details", json.dumps(body).encode(),
                                         {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def test_a_question_is_understood_and_answered_aloud(self):
        words, microphone = f"{self.folder}/words.wav", f"{self.folder}/microphone.wav"
        self.ok("tts", QUESTION, "--voice", "rms", "--out", words)
        with_silence(words, microphone, 1, 20)
        details = self.token("front-desk")
        query = urllib.parse.urlencode({"name": "ann", "url": details["server_url"],
                                        "token": details["participant_token"]})
        chromium = browser(f"http://127.0.0.1:{self.page.port}/?{query}", f"{microphone}%noloop", self.folder)

        def end():
            chromium.kill()
            chromium.wait()
        self.addCleanup(end)
        try:
            heard = self.page.wait(lambda e: e["what"] == "transcript" and e["who"] == "ann" and QUESTION in e["text"], 60)
            answer = self.page.wait(
                lambda e: e["what"] == "transcript" and e["who"] != "ann" and "80 euros" in e["text"], 30)
            time.sleep(3)  # the last words are still on their way to the loudspeaker
            self.page.enough.set()
            stats = self.page.wait(lambda e: e["what"] == "stats", 20)
            self.page.wait(lambda e: e["what"] == "done", 20)
        except AssertionError as error:
            log = pathlib.Path(self.folder, "chromium.log").read_text(errors="replace")[-3000:]
            raise AssertionError(f"{error}\n--- chromium\n{log}\n--- cluster\n{self.dev.log()[-5000:]}") from None
        print("heard:", json.dumps(heard), "\nanswered:", json.dumps(answer))
        self.check_recording()
        incoming = [s for s in stats["figures"] if s["type"] == "inbound-rtp"]
        outgoing = [s for s in stats["figures"] if s["type"] == "outbound-rtp"]
        print("connected after", self.page.wait(lambda e: e["what"] == "connected", 1)["ms"], "ms; inbound",
              {k: incoming[0].get(k) for k in ("packetsReceived", "packetsLost", "concealedSamples")})
        self.assertGreater(incoming[0]["packetsReceived"], 100)
        self.assertGreater(outgoing[0]["packetsSent"], 100)

    def check_recording(self):
        """What the page heard is speech: a recogniser finds the answer's words in it."""
        recording = f"{self.folder}/heard.wav"
        with wave.open(recording, "wb") as wav:
            wav.setnchannels(1)
            wav.setsampwidth(2)
            wav.setframerate(16000)
            wav.writeframes(self.page.recording)
        grammar = pathlib.Path(self.folder, "answer.jsgf")
        grammar.write_text("#JSGF V1.0;\ngrammar answer;\npublic <said> = [good day how can i help] "
                           "a (single | double | suite) room is (eighty | one hundred and twenty) euros a night;\n")
        result = self.ok("--json", "stt", recording, "--grammar", grammar)
        print("recognised:", result.stdout.strip())
        self.assertIn("single room is eighty", json.dumps(data(result)))


if __name__ == "__main__":
    unittest.main(verbosity=2)
