#!/usr/bin/env python3
"""`concierge console`: a program's agent in the terminal, without a cluster. Written, from WAV files, and through ALSA."""
import array
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import wave

sys.path.insert(0, os.path.dirname(__file__))
import cluster  # noqa: E402

CONCIERGE = str(cluster.BIN / "concierge")


def speech(text):
    """48 kHz mono samples of a synthetic voice."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "speech.wav"
        subprocess.run(["espeak-ng", "-v", "en-us", "-s", "140", "-w", str(path), text], check=True)
        with wave.open(str(path)) as file:
            rate, samples = file.getframerate(), array.array("h", file.readframes(file.getnframes()))
    count = len(samples) * 48_000 // rate
    return array.array("h", (samples[min(i * rate // 48_000, len(samples) - 1)] for i in range(count)))


def write_wav(path, samples):
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 48_000, 0, "NONE", ""))
        file.writeframes(samples.tobytes())


def loud(samples):
    """How many of its 20 ms are louder than -40 dBov."""
    frames = (samples[at:at + 960] for at in range(0, len(samples) - 959, 960))
    return sum(1 for frame in frames if max(abs(one) for one in frame) > 327)


class ConsoleTest(unittest.TestCase):
    def console(self, *arguments, stdin="", env=None):
        environment = {**cluster.clean_environment(), **(env or {})}
        result = subprocess.run([CONCIERGE, "console", *map(str, arguments)], input=stdin, text=True, capture_output=True,
                                timeout=90, env=environment)
        self.assertEqual(result.returncode, 0, f"{result.stdout}\n{result.stderr}")
        return result.stdout.splitlines()

    def test_a_written_conversation(self):
        lines = self.console(stdin="book a table for dinner\none moment\nwhat have i booked\n")
        said = [line for line in lines if line.startswith(("you:", "agent:"))]
        self.assertEqual(said[-5:], [
            "you:   book a table for dinner",
            "agent: I have booked a table for dinner.",
            "you:   one moment",  # which the program refuses to answer
            "you:   what have i booked",
            "agent: You have booked a table for dinner.",
        ], lines)
        self.assertEqual(said[0], "agent: Good day. Shall I book a table for you?")
        self.assertTrue(any("ms] endpointing" in line for line in lines), lines)
        self.assertTrue(any("the guest has gone booked=a table for dinner" in line for line in lines), lines)
        self.assertTrue(any(line.startswith("  2 turns; ") for line in lines), lines)

    def test_a_spoken_conversation(self):
        with tempfile.TemporaryDirectory() as folder:
            asked, record = pathlib.Path(folder) / "asked.wav", pathlib.Path(folder) / "record.wav"
            write_wav(asked, speech("book a table for dinner"))
            lines = self.console("--wav", asked, "--record", record)
            said = [line for line in lines if line.startswith(("you:", "agent:"))]
            self.assertEqual(said, [
                "agent: Good day. Shall I book a table for you?",
                "you:   book a table for dinner",
                "agent: I have booked a table for dinner.",
            ], lines)
            with wave.open(str(record)) as file:
                self.assertEqual((file.getnchannels(), file.getframerate()), (2, 48_000))
                samples = array.array("h", file.readframes(file.getnframes()))
            self.assertGreater(loud(samples[0::2]), 40, "the person is on the left")
            self.assertGreater(loud(samples[1::2]), 100, "the agent is on the right")

    def test_a_microphone_and_a_loudspeaker(self):
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            # Devices that are files: seven seconds of silence while the agent greets, then the guest, who says it again to whoever
            # did not hear it whole.
            silence = array.array("h", bytes(2 * 48_000 * 7))
            (folder / "mic.raw").write_bytes(((silence + speech("book a table for dinner")) * 3 + silence).tobytes())
            (folder / "alsa.conf").write_text(f"""
                pcm.nothing {{ type null }}
                pcm.mic {{ type file slave.pcm "nothing" file "/dev/null" format raw infile "{folder}/mic.raw" }}
                pcm.desk {{ type file slave.pcm "nothing" file "{folder}/out.raw" format raw }}
            """)
            environment = {**cluster.clean_environment(), "ALSA_CONFIG_PATH": str(folder / "alsa.conf")}
            log = folder / "console.log"
            with open(log, "wb") as out:
                program = subprocess.Popen([CONCIERGE, "console", "--mic", "--microphone", "mic", "--loudspeaker", "desk"],
                                           stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment)
            try:
                deadline = time.monotonic() + 60
                while "I have booked a table for dinner." not in log.read_text():
                    self.assertLess(time.monotonic(), deadline, log.read_text())
                    self.assertIsNone(program.poll(), log.read_text())
                    time.sleep(0.1)
                time.sleep(1)  # aplay's own buffer
                program.send_signal(signal.SIGINT)
                self.assertEqual(program.wait(20), 0, log.read_text())
            finally:
                if program.poll() is None:
                    program.kill()
                    program.wait()
            played = array.array("h", (folder / "out.raw").read_bytes()[:2 * 48_000 * 60])
            self.assertGreater(loud(played), 50, "the loudspeaker said nothing")

    def test_what_cannot_work_is_said(self):
        for arguments, text in ((["--wav", "/nowhere.wav"], "/nowhere.wav"), (["--nonsense"], "nonsense")):
            result = subprocess.run([CONCIERGE, "console", *arguments], input="", text=True, capture_output=True, timeout=30,
                                    env=cluster.clean_environment())
            self.assertNotEqual(result.returncode, 0)
            self.assertIn(text, result.stdout + result.stderr)


if __name__ == "__main__":
    unittest.main()
