#!/usr/bin/env python3
"""The console page, driven through its own controls: sign in, talk, mute, write, watch, hang up; on a phone's screen too.

Screenshots stay in BUILD/artifacts/console."""
import os
import pathlib
import shutil
import sys
import tempfile
import unittest
import wave

sys.path.insert(0, os.path.join(os.environ["PARLEY_SOURCE_DIR"], "tests", "e2e"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import cluster  # noqa: E402
from driver import Page  # noqa: E402
from pages import CHROMIUM  # noqa: E402

QUESTION = "how much is a single room"
ARTEFACTS = pathlib.Path(os.environ["PARLEY_BUILD_DIR"]) / "artifacts" / "console"
BUNDLE = pathlib.Path(os.environ["PARLEY_BUILD_DIR"]) / "share" / "parley" / "console" / "console.js"


def question(dev, folder):
    """A microphone's file: quiet until the greeting is over, the question, quiet."""
    words, microphone = f"{folder}/words.wav", f"{folder}/microphone.wav"
    spoken = dev.run("tts", QUESTION, "--voice", "rms", "--out", words)
    assert spoken.returncode == 0, spoken.stderr
    with wave.open(words) as wav:
        parameters, frames = wav.getparams(), wav.readframes(wav.getnframes())
    second = b"\0\0" * parameters.framerate
    with wave.open(microphone, "wb") as wav:
        wav.setparams(parameters)
        wav.writeframes(second * 5 + frames + second * 60)
    return microphone


@unittest.skipUnless(CHROMIUM, "no chromium here")
@unittest.skipUnless(BUNDLE.exists(), "the console page was built without npm")
class ConsolePageTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        self.dev = cluster.Dev()
        self.addCleanup(self.dev.close)
        self.dev.start()
        self.page = Page(self.folder, question(self.dev, self.folder))
        self.addCleanup(self.page.close)

    def shot(self, name):
        self.page.screenshot(ARTEFACTS / f"{name}.png")

    def text(self, selector):
        return self.page.value(f"document.querySelector('{selector}').innerText")

    def focused(self):
        return self.page.value("document.activeElement.id")

    def tab_to(self, target):
        """By keyboard alone."""
        for _ in range(40):
            if self.focused() == target:
                return
            self.page.tab()
        self.fail(f"{target} is not reached by Tab")

    def watch_devices(self):
        """Keeps what the page asks the browser for."""
        self.page.value("""(() => {
            window.microphones = []; window.speakers = [];
            const media = navigator.mediaDevices, get = media.getUserMedia.bind(media);
            media.getUserMedia = (wish) => { microphones.push(JSON.stringify(wish.audio?.deviceId ?? '')); return get(wish); };
            const set = HTMLMediaElement.prototype.setSinkId;
            HTMLMediaElement.prototype.setSinkId = function (id) { speakers.push(id); return set.call(this, id); };
        })()""")

    def choose_devices(self):
        """Another microphone and loudspeaker in the midst of the call, by keyboard."""
        page = self.page
        for select, asked in (("microphone", "microphones"), ("speaker", "speakers")):
            wanted = page.wait(f"document.getElementById('{select}').options[2]?.value", 10)
            page.value(f"document.getElementById('{select}').focus()")
            page.key("ArrowDown", 40)
            page.key("ArrowDown", 40)
            page.wait(f"window.{asked}.some((one) => one.includes({wanted!r}))", 10)
            self.assertEqual(page.value(f"document.getElementById('{select}').value"), wanted)

    def test_a_person_talks_to_an_agent_on_the_page(self):
        page = self.page
        page.open(self.dev.url + "/")
        page.wait("document.getElementById('sign-in')?.hidden === false", 15)
        self.shot("1-sign-in")
        self.tab_to("key")
        page.type("devkey")
        self.tab_to("secret")
        page.type("wrong")
        page.enter()
        page.wait("!document.getElementById('problem').hidden", 10)
        page.value("document.getElementById('secret').select()")
        page.type("secret")
        page.enter()
        page.wait("[...document.getElementById('agent').options].some((one) => one.value === 'front-desk')", 10)
        page.value("document.getElementById('agent').value = 'front-desk'")
        self.shot("2-desk")

        self.watch_devices()
        self.tab_to("start")
        page.enter()
        page.wait("document.getElementById('transcript').innerText.includes('single room')", 40)  # after the browser's own echo and noise filters
        page.wait("document.getElementById('transcript').innerText.includes('80 euros')", 30)
        page.wait("document.querySelectorAll('#chart rect').length >= 5", 10)
        self.assertIn("answers, the last after", page.value("document.querySelector('#chart svg').getAttribute('aria-label')"))
        page.wait("document.querySelector('audio')?.srcObject?.getAudioTracks()[0]?.readyState === 'live'", 5)
        self.shot("3-answered")

        self.choose_devices()
        page.click("#mute")
        page.wait("document.getElementById('mute').getAttribute('aria-pressed') === 'true'", 5)
        page.wait("document.querySelector('#sessions button') !== null", 10)
        page.click("#sessions button")
        page.wait("document.getElementById('watch-log').innerText.includes('job running')", 10)
        page.click("#text")
        page.type("how much is a suite")
        page.enter()
        for log in ("transcript", "watch-log"):
            page.wait(f"document.getElementById('{log}').innerText.includes('250 euros')", 20)
        self.assertEqual(self.text("#workers").count("LIVE"), 1)
        self.shot("4-written")

        page.resize(390, 800)
        wide = page.value("document.documentElement.scrollWidth")
        self.assertLessEqual(wide, 390, "the page is wider than a phone")
        self.shot("5-phone")
        page.click("#hang-up")
        page.wait("document.getElementById('state').innerText === 'the call has ended'", 10)
        page.wait("document.getElementById('watch-log').innerText.includes('has ended')", 30)
        self.assertFalse(page.value("document.getElementById('start').disabled"))
        self.assertEqual(page.errors, [])
        page.value("document.getElementById('sign-out').click()")
        page.wait("document.getElementById('sign-in')?.hidden === false", 10)
        self.assertIsNone(page.value("sessionStorage.getItem('parley.credentials')"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
