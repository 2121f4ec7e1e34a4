"""A person in headless Chromium asks an agent something aloud, with the published livekit-client (talk.html), and hears the answer."""
import http.server
import json
import pathlib
import threading
import time
import urllib.parse
import wave

from cluster import data
from pages import CLIENT, HERE, browser

QUESTION = "how much is a single room"
ANSWER = "80 euros"
SPOKEN_ANSWER = "single room is eighty"
GRAMMAR = """#JSGF V1.0;
grammar answer;
public <said> = [good day how can i help] a (single | double | suite) room is (eighty | one hundred and twenty) euros a night;
"""


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
    """The same words with quiet around them, in seconds, as a microphone hears them."""
    with wave.open(str(source)) as wav:
        parameters, frames = wav.getparams(), wav.readframes(wav.getnframes())
    silence = b"\0\0" * parameters.framerate
    with wave.open(str(target), "wb") as wav:
        wav.setparams(parameters)
        wav.writeframes(silence * before + frames + silence * after)


class BrowserCall:
    """Mixed into a test case with `dev` (a cluster.Dev that runs) and `folder`."""

    def ask_in_a_browser(self, name, url, token, logs):
        """`name` joins, asks QUESTION once the agent listens, hears the answer out and leaves; `logs` says what servers wrote."""
        page = Page()
        self.addCleanup(page.close)
        words, microphone = f"{self.folder}/words.wav", f"{self.folder}/microphone.wav"
        self.succeeds("tts", QUESTION, "--voice", "rms", "--out", words)
        with_silence(words, microphone, 1, 20)
        query = urllib.parse.urlencode({"name": name, "url": url, "token": token})
        chromium = browser(f"http://127.0.0.1:{page.port}/?{query}", f"{microphone}%noloop", self.folder)

        def end():
            chromium.kill()
            chromium.wait()
        self.addCleanup(end)
        try:
            heard = page.wait(lambda e: e["what"] == "transcript" and e["who"] == name and QUESTION in e["text"], 60)
            answer = page.wait(lambda e: e["what"] == "transcript" and e["who"] != name and ANSWER in e["text"], 30)
            time.sleep(3)  # the last words are still on their way to the loudspeaker
            page.enough.set()
            stats = page.wait(lambda e: e["what"] == "stats", 20)
            page.wait(lambda e: e["what"] == "done", 20)
        except AssertionError as error:
            log = pathlib.Path(self.folder, "chromium.log").read_text(errors="replace")[-3000:]
            raise AssertionError(f"{error}\n--- chromium\n{log}\n--- servers\n{logs()}") from None
        print("heard:", json.dumps(heard), "\nanswered:", json.dumps(answer))
        self.check_recording(page.recording)
        incoming, outgoing = ([s for s in stats["figures"] if s["type"] == kind + "-rtp"] for kind in ("inbound", "outbound"))
        print("connected after", page.wait(lambda e: e["what"] == "connected", 1)["ms"], "ms; inbound",
              {k: incoming[0].get(k) for k in ("packetsReceived", "packetsLost", "concealedSamples")})
        self.assertGreater(incoming[0]["packetsReceived"], 100)
        self.assertGreater(outgoing[0]["packetsSent"], 100)

    def check_recording(self, samples):
        """What the page heard is speech: a recogniser finds the answer's words in it."""
        recording = f"{self.folder}/heard.wav"
        with wave.open(recording, "wb") as wav:
            wav.setnchannels(1)
            wav.setsampwidth(2)
            wav.setframerate(16000)
            wav.writeframes(samples)
        grammar = pathlib.Path(self.folder, "answer.jsgf")
        grammar.write_text(GRAMMAR)
        result = self.succeeds("--json", "stt", recording, "--grammar", grammar)
        print("recognised:", result.stdout.strip())
        self.assertIn(SPOKEN_ANSWER, json.dumps(data(result)))

    def succeeds(self, *arguments):
        result = self.dev.run(*arguments)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result
