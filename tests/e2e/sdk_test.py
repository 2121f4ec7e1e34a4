#!/usr/bin/env python3
"""A program outside the project: the concierge, built against the installed package, takes a call."""
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.dirname(__file__))
import cluster  # noqa: E402


class SdkTest(unittest.TestCase):
    def build(self, folder):
        def do(*command):
            result = subprocess.run([str(one) for one in command], capture_output=True, text=True, cwd=folder)
            self.assertEqual(result.returncode, 0, f"{command}:\n{result.stdout}\n{result.stderr}")

        source = folder / "concierge"
        source.mkdir()
        for name in ("CMakeLists.txt", "main.cc"):
            (source / name).write_bytes((cluster.SOURCE / "examples" / "concierge" / name).read_bytes())
        do("cmake", "--install", cluster.BIN.parent, "--component", "sdk", "--prefix", folder / "prefix")
        do("cmake", "-S", source, "-B", folder / "build", "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release",
           f"-DCMAKE_PREFIX_PATH={folder / 'prefix'}")
        do("cmake", "--build", folder / "build")
        return folder / "build" / "concierge"

    def test_the_example_is_built_against_the_package_and_takes_a_call(self):
        with tempfile.TemporaryDirectory() as name:
            program = self.build(pathlib.Path(name))
            dev = cluster.Dev()
            self.addCleanup(dev.close)
            dev.start()
            addresses = {"dispatch": 7100, "rooms": 7105, "stt": 7102, "tts": 7103, "llm": 7104}
            flags = [f"--{service}-address=127.0.0.1:{port + dev.offset}" for service, port in addresses.items()]
            log_path = pathlib.Path(name) / "concierge.log"
            with open(log_path, "wb") as log:
                agent = subprocess.Popen([program, "start", "--dev", "--health-port=0", *flags], stdout=log, stderr=log,
                                         env=cluster.clean_environment())
            try:
                deadline = time.monotonic() + 20
                while "registered" not in log_path.read_text():
                    self.assertLess(time.monotonic(), deadline, log_path.read_text())
                    time.sleep(0.05)
                call = dev.run("call", "--agent", "concierge", "--say", "book a table for dinner",
                               "--expect", "booked a table for dinner")
                self.assertEqual(call.returncode, 0, f"{call.stdout}\n{call.stderr}\n{log_path.read_text()[-2000:]}")
            finally:
                agent.terminate()
                self.assertEqual(agent.wait(30), 0)


if __name__ == "__main__":
    unittest.main()
