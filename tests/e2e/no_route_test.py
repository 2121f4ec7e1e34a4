#!/usr/bin/env python3
"""The call of scripts/quickstart where nothing but this machine can be reached: in a network namespace of its own, whose only
interface is loopback. Exits 77 where the kernel gives us no namespace."""
import errno
import os
import socket
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.dirname(__file__))

INSIDE = "PARLEY_TEST_NO_ROUTE"
SKIPPED = 77


class NoRouteTest(unittest.TestCase):
    def test_there_is_no_way_out(self):
        for address in ("192.0.2.1", "8.8.8.8"):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, self.assertRaises(OSError) as caught:
                probe.connect((address, 53))
            self.assertEqual(caught.exception.errno, errno.ENETUNREACH)
        with self.assertRaises(socket.gaierror):
            socket.getaddrinfo("debian.org", 443)

    def test_the_call_of_quickstart_works(self):
        import cluster
        dev = cluster.Dev()
        self.addCleanup(dev.close)
        dev.start()
        result = dev.run("call", "--agent", "front-desk", "--say", "how much is a single room", "--voice", "rms",
                         "--expect", "single room is 80 euros", "--expect-tool")
        self.assertEqual(result.returncode, 0, f"{result.stdout}\n{result.stderr}\n{dev.log()[-2000:]}")
        print(result.stdout)
        self.assertEqual(dev.stop(), 0, dev.log()[-2000:])


def enter():
    """Runs this program once more, inside."""
    unshare = ["unshare", "--net"] + ([] if os.geteuid() == 0 else ["--map-root-user"])
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode != 0:
        print("no network namespace for us here")
        return SKIPPED
    inside = ["sh", "-c", 'ip link set lo up && exec "$@"', "sh", sys.executable, __file__]
    return subprocess.run([*unshare, *inside], env={**os.environ, INSIDE: "1"}, check=False).returncode


if __name__ == "__main__":
    if INSIDE not in os.environ:
        sys.exit(enter())
    unittest.main(verbosity=2)
