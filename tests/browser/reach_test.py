#!/usr/bin/env python3
"""Browsers whose network lets them reach the room server only over TCP, or only through a relay (coturn)."""
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import people  # noqa: E402


def free_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@unittest.skipUnless(shutil.which("turnserver"), "no coturn here")
class ReachTest(people.PeopleTest):
    @classmethod
    def setUpClass(cls):
        cls.turn_folder = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, cls.turn_folder, ignore_errors=True)
        cls.turn_port = free_port()
        cls.turn_log = open(f"{cls.turn_folder}/turn.log", "wb")
        cls.addClassCleanup(cls.turn_log.close)
        cls.turn = subprocess.Popen(
            ["turnserver", "-n", "--listening-ip=127.0.0.1", f"--listening-port={cls.turn_port}", "--relay-ip=127.0.0.1",
             "--use-auth-secret", "--static-auth-secret=north", "--realm=parley.test", "--no-tls", "--no-dtls", "--no-cli",
             "--allow-loopback-peers", "--log-file=stdout", "--verbose", f"--pidfile={cls.turn_folder}/pid",
             f"--userdb={cls.turn_folder}/db"],
            stdout=cls.turn_log, stderr=subprocess.STDOUT, cwd=cls.turn_folder)

        def end():
            cls.turn.terminate()
            cls.turn.wait(10)
        cls.addClassCleanup(end)
        secret = f"{cls.turn_folder}/secret"
        with open(secret, "w") as file:
            file.write("north\n")
        cls.ROOM_SERVER = ("--rtc-tcp-port=0", f"--turn-urls=turn:127.0.0.1:{cls.turn_port}?transport=udp",
                           f"--turn-secret-file={secret}")
        super().setUpClass()

    def talk(self, room, **query):
        self.open("ann", room, **query)
        self.open("bob", room)
        self.pages.do("ann", "microphone", True)
        self.pages.do("bob", "microphone", True)
        self.grows("bob", "heard", "ann", "packets", 100)
        self.grows("ann", "heard", "bob", "packets", 100)
        self.grows("ann", "heard", "bob", "energy", 0.01)
        path = self.pages.do("ann", "path")
        print(room, path, self.of("ann", "heard", "bob"))
        return path

    def test_over_tcp(self):
        self.assertEqual(self.talk("tcp", tcp="1")["protocol"], "tcp")

    def test_through_a_relay(self):
        path = self.talk("relay", relay="1")
        self.assertEqual(path["local"], "relay")
        deadline = time.monotonic() + 5
        while b"ALLOCATE processed, success" not in open(self.turn_log.name, "rb").read():
            self.assertLess(time.monotonic(), deadline, open(self.turn_log.name).read()[-2000:])
            time.sleep(0.1)


if __name__ == "__main__":
    unittest.main(verbosity=2)
