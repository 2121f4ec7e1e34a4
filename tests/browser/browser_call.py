"""A person in headless Chromium asks an agent something aloud, with the published livekit-client (room.html), and hears the answer."""
import base64
import json
import pathlib
import time
import urllib.parse
import wave

from cluster import data
from pages import Pages, browser

QUESTION = "how much is a single room"
ANSWER = "80 euros"
SPOKEN_ANSWER = "single room is eighty"
GRAMMAR = """#JSGF V1.0;
grammar answer;
public <said> = [good day how can i help] a (single | double | suite) room is (eighty | one hundred and twenty) euros a night;
"""


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
        page = Pages("room.html")
        self.addCleanup(page.close)
        words, microphone = f"{self.folder}/words.wav", f"{self.folder}/microphone.wav"
        self.succeeds("tts", QUESTION, "--voice", "rms", "--out", words)
        with_silence(words, microphone, 1, 20)
        query = urllib.parse.urlencode({"name": name, "single": 1, "record": 1, "url": url, "token": token})
        chromium = browser(f"http://127.0.0.1:{page.port}/?{query}", f"{microphone}%noloop", self.folder)

        def end():
            chromium.kill()
            chromium.wait()
        self.addCleanup(end)

        def transcript(of_name, words):
            return lambda e: e["what"] == "transcript" and (e["who"] == name) == of_name and words in e["text"]
        try:
            page.wait(lambda e: e["what"] == "ready", 40, "the page is there")
            joined = page.do(name, "join", seconds=40)
            agent = page.wait(lambda e: e["what"] == "attributes" and e["changed"].get("lk.agent.state") == "listening", 60,
                              "the agent listens")["who"]
            page.do(name, "microphone", True)
            heard = page.wait(transcript(True, QUESTION), 60, "the question is understood")
            answer = page.wait(transcript(False, ANSWER), 30, "the answer")
            time.sleep(3)  # the last words are still on their way to the loudspeaker
            sent, incoming = page.do(name, "sent"), page.do(name, "heard")[agent]
            recording = base64.b64decode(page.do(name, "recording"))
            page.do(name, "leave")
        except AssertionError as error:
            log = pathlib.Path(self.folder, "chromium.log").read_text(errors="replace")[-3000:]
            raise AssertionError(f"{error}\n--- chromium\n{log}\n--- servers\n{logs()}") from None
        print("heard:", json.dumps(heard), "\nanswered:", json.dumps(answer))
        self.check_recording(recording)
        print("connected after", joined["ms"], "ms; inbound", incoming)
        self.assertGreater(incoming["packets"], 100)
        self.assertGreater(sent, 100)

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
