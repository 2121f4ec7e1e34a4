#!/usr/bin/env python3
"""Two participants with the published Node SDK in one room, against `parley dev`."""
import json
import os
import shutil
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.environ["PARLEY_SOURCE_DIR"], "tests", "e2e"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import cluster  # noqa: E402
import pages  # noqa: E402

BUILD = os.environ["PARLEY_BUILD_DIR"]
HERE = os.path.dirname(os.path.abspath(__file__))


@unittest.skipUnless(shutil.which("node"), "no node here")
class NodeSdkTest(unittest.TestCase):
    def test_two_of_them_do_to_each_other_what_the_sdk_offers(self):
        dev = cluster.Dev()
        self.addCleanup(dev.close)
        dev.start()
        tokens = [pages.token({"iss": "devkey", "sub": who, "exp": int(time.time()) + 600,
                               "video": {"roomJoin": True, "room": "node", "canUpdateOwnMetadata": True}})
                  for who in ("ann", "bob")]
        url = f"ws://127.0.0.1:{7880 + dev.offset}"
        result = subprocess.run(["node", f"{HERE}/node_sdk.mjs", f"{BUILD}/browser/node", url, *tokens],
                                capture_output=True, text=True, timeout=150, env=cluster.clean_environment())
        self.assertEqual(result.returncode, 0, f"{result.stdout}\n{result.stderr[-3000:]}\n{dev.log()[-3000:]}")
        seen = json.loads(result.stdout.strip().splitlines()[-1])
        print(json.dumps(seen))
        self.assertEqual(seen["bob"]["texts"], [["ann", 13 * 3000]])
        self.assertEqual(seen["ann"]["files"], [["bob", 40_000]])
        self.assertEqual(seen["sum"], "6")
        self.assertEqual(seen["codes"], [1400, 1401])
        self.assertEqual(dev.stop(), 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
