#!/usr/bin/env python3
"""LiveKit's own workers, unmodified, on /agent of a real cluster."""
import base64
import hashlib
import hmac
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).parent
BIN = pathlib.Path(os.environ["PARLEY_BIN_DIR"])
BUILD = pathlib.Path(os.environ["PARLEY_BUILD_DIR"]) / "livekit_workers"
PYTHON = [str(BUILD / "python/venv/bin/python"), str(HERE / "worker.py"), "start"]
NODE = ["node", str(BUILD / "node/worker.js"), "start"]


def environment(extra):
    """Ours without anybody's Parley or LiveKit settings."""
    kept = {k: v for k, v in os.environ.items() if not re.match(r"(PARLEY|LIVEKIT)_(?!BIN_DIR)", k)}
    return {**kept, **extra}


def token(grants, **more):
    """An access token of the development key; `more` claims."""
    def part(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    claims = {"iss": "devkey", "exp": int(time.time()) + 3600, "video": grants, **more}
    text = part(b'{"alg":"HS256"}') + b"." + part(json.dumps(claims).encode())
    return (text + b"." + part(hmac.new(b"secret", text, hashlib.sha256).digest())).decode()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Cluster:
    """Real services, their API, and workers that are gone with them."""

    def __init__(self, *arguments):
        self.folder = tempfile.TemporaryDirectory()
        self.workers = []
        self.process = subprocess.Popen(
            [BIN / "parley-test-cluster", "--agent-servers", "0", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment({}))
        self.where = json.loads(self.process.stdout.readline())
        self.url = "ws://" + self.where["api-server"]
        self.token = token({"roomCreate": True, "roomList": True})

    def close(self):
        for worker in self.workers:
            worker.kill()
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()
        self.folder.cleanup()

    def twirp(self, method, body, room):
        return self.call("POST", "/twirp/livekit." + method, body, token({"roomAdmin": True, "room": room}))

    def call(self, method, path, body=None, bearer=None):
        request = urllib.request.Request(
            f"http://{self.where['api-server']}{path}", method=method, data=None if body is None else json.dumps(body).encode(),
            headers={"authorization": f"Bearer {bearer or self.token}", "content-type": "application/json"})
        deadline = time.monotonic() + 20
        while True:
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:
                    return json.loads(answer.read() or b"{}")
            except urllib.error.HTTPError as error:  # 503: a busy machine; asking again is safe
                if error.code != 503 or method != "GET" or time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def dispatch(self, agent, wish, room="lobby", **more):
        # A busy machine starts workers slowly: no queue's deadline shall pass meanwhile.
        body = {"agentName": agent, "room": room, "metadata": json.dumps(wish), "queueDeadline": "10m", **more}
        return self.call("POST", "/api/dispatches", body)["id"]

    def job(self, dispatch):
        jobs = self.call("GET", f"/api/dispatches/{dispatch}").get("jobs", [])
        return jobs[0] if jobs else {}

    def worker(self, command, agent, **env):
        worker = Worker(self, command, agent, env)
        self.workers.append(worker)
        return worker


class Worker:
    """One worker process, in a group of its own with its jobs."""

    def __init__(self, owner, command, agent, env):
        number = len(owner.workers)
        self.log_path = pathlib.Path(owner.folder.name) / f"worker-{number}.log"
        self.evidence_path = pathlib.Path(owner.folder.name) / f"evidence-{number}"
        self.evidence_path.touch()
        settings = {"LIVEKIT_URL": owner.url, "LIVEKIT_API_KEY": "devkey", "LIVEKIT_API_SECRET": "secret", "AGENT": agent,
                    "EVIDENCE": str(self.evidence_path), "HEALTH_PORT": str(free_port()), **env}
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment(settings),
                                            start_new_session=True)

    def log(self):
        return self.log_path.read_text(errors="replace")

    def evidence(self, event=None):
        lines = [json.loads(line) for line in self.evidence_path.read_text().splitlines()]
        return [line for line in lines if event in (None, line["event"])]

    def kill(self):
        """All of it at once, as when its machine is gone."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


class Cases:
    """What is true of a worker in either language."""

    command = None

    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster()

    @classmethod
    def tearDownClass(cls):
        cls.cluster.close()

    def eventually(self, condition, seconds, what):
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            if time.monotonic() > deadline:
                logs = "\n".join(worker.log()[-3000:] for worker in self.cluster.workers[-2:])
                self.fail(f"{what}\n{logs}")
            time.sleep(0.05)
        return found

    def start(self, agent, **env):
        before = self.registered(agent)
        worker = self.cluster.worker(self.command, agent, **env)
        self.eventually(lambda: self.registered(agent) > before, 90, "the worker did not register")
        return worker

    def registered(self, agent):
        workers = self.cluster.call("GET", f"/api/workers?pool={agent}").get("workers", [])
        return len([worker for worker in workers if worker.get("state") == "LIVE"])

    def state(self, dispatch, state, seconds=20):
        return self.eventually(
            lambda: (job := self.cluster.job(dispatch)).get("state") == state and job, seconds,
            f"{dispatch} is not {state}: {self.cluster.job(dispatch)}")

    def began(self, worker, count=1, seconds=30):
        self.eventually(lambda: len(worker.evidence("began")) >= count, seconds, "the entrypoint did not run")
        return worker.evidence("began")[-1]


class PythonWorkerTest(Cases, unittest.TestCase):
    command = PYTHON

    def test_runs_its_job_in_a_process_of_its_own_and_reports_success(self):
        worker = self.start("py-runs")
        dispatch = self.cluster.dispatch("py-runs", {"do": "end", "join": True}, room="parlour")
        job = self.state(dispatch, "SUCCEEDED")
        began = worker.evidence("began")[0]
        self.assertNotEqual(began["pid"], worker.process.pid)
        self.assertEqual(began["job"], job["id"])
        self.assertEqual(began["room"], "parlour")
        joined = worker.evidence("joined")[0]
        self.assertEqual(joined["identity"], f"agent-{job['id']}")
        self.assertEqual(joined["name"], "Echo")
        self.assertEqual(joined["attributes"]["tone"], "kind")
        self.assertEqual(job["attempt"], 1)

    def test_rejects(self):
        self.start("py-rejects")
        job = self.state(self.cluster.dispatch("py-rejects", {"answer": "reject"}), "FAILED")
        self.assertEqual(job["reason"], "REJECTED")
        second = self.cluster.dispatch("py-rejects", {"answer": "pass"})
        time.sleep(1.5)
        self.assertIn(self.cluster.job(second)["state"], ("PENDING", "OFFERED"))  # somebody else may take it
        self.cluster.call("DELETE", f"/api/dispatches/{second}")

    def test_crash_is_tried_again_three_times(self):
        worker = self.start("py-crashes")
        job = self.state(self.cluster.dispatch("py-crashes", {"do": "crash"}), "FAILED", 60)
        self.assertEqual(job["reason"], "ENTRYPOINT_ERROR")
        self.assertEqual(job["attempt"], 3)
        self.assertEqual([one["job"] for one in worker.evidence("began")], [job["id"], job["id"] + "-2", job["id"] + "-3"])

    def test_is_told_to_end(self):
        worker = self.start("py-ends")
        dispatch = self.cluster.dispatch("py-ends", {"do": "wait"})
        self.state(dispatch, "RUNNING")
        self.began(worker)
        self.cluster.call("DELETE", f"/api/dispatches/{dispatch}")
        self.state(dispatch, "CANCELLED")
        self.eventually(lambda: worker.evidence("told to end"), 20, "its process was not told")

    def test_drains_when_it_is_asked_to_stop(self):
        worker = self.start("py-drains")
        first = self.cluster.dispatch("py-drains", {"do": "wait", "seconds": 6})
        self.state(first, "RUNNING")
        self.began(worker)
        worker.process.send_signal(signal.SIGTERM)
        self.eventually(lambda: "draining" in worker.log(), 5, "no drain")
        second = self.cluster.dispatch("py-drains", {"do": "end"})
        job = self.state(first, "SUCCEEDED")
        self.assertEqual(job["attempt"], 1)
        worker.process.wait(20)
        self.assertEqual(len(worker.evidence("began")), 1)
        self.start("py-drains")
        self.state(second, "SUCCEEDED", 60)

    def test_killed_and_its_job_runs_on_the_second_worker(self):
        first = self.start("py-killed")
        dispatch = self.cluster.dispatch("py-killed", {"do": "wait"})
        self.state(dispatch, "RUNNING")
        self.began(first)
        second = self.start("py-killed")
        first.kill()
        self.eventually(lambda: self.cluster.job(dispatch).get("attempt") == 2, 20, "not given to the second")
        self.state(dispatch, "RUNNING")
        began = self.began(second)
        self.assertEqual(began["job"], self.cluster.job(dispatch)["id"] + "-2")
        self.cluster.call("DELETE", f"/api/dispatches/{dispatch}")
        self.state(dispatch, "CANCELLED")


class NodeWorkerTest(Cases, unittest.TestCase):
    command = NODE  # it never says how its jobs are

    @staticmethod
    def put_beside_its_packages():
        (BUILD / "node/worker.js").write_text((HERE / "worker.js").read_text())

    @classmethod
    def setUpClass(cls):
        cls.put_beside_its_packages()
        # An agent whose connection breaks counts as gone after 3 s, not 20.
        cls.cluster = Cluster("--argument=room-server:--rtc-resume", "--argument=room-server:3s")

    def test_runs_its_job_in_a_process_of_its_own(self):
        worker = self.start("js-runs")
        dispatch = self.cluster.dispatch("js-runs", {"do": "wait"}, room="parlour")
        began = self.began(worker)
        self.assertNotEqual(began["pid"], worker.process.pid)
        self.assertEqual(began["room"], "parlour")
        self.state(dispatch, "RUNNING")
        self.cluster.call("DELETE", f"/api/dispatches/{dispatch}")
        self.state(dispatch, "CANCELLED", 30)
        self.eventually(lambda: worker.evidence("told to end"), 20, "its process was not told")

    def test_end_is_seen_in_its_room(self):
        worker = self.start("js-ends")
        dispatch = self.cluster.dispatch("js-ends", {"do": "wait", "seconds": 6, "join": True})
        self.state(dispatch, "RUNNING", 60)
        job = self.state(dispatch, "SUCCEEDED", 40)
        self.assertEqual(worker.evidence("joined")[0]["identity"], f"agent-{job['id']}")
        self.assertEqual(job["attempt"], 1)

    def test_crash_is_tried_again_three_times(self):
        worker = self.start("js-crashes")
        dispatch = self.cluster.dispatch("js-crashes", {"do": "crash", "join": True})
        job = self.state(dispatch, "FAILED", 120)
        self.assertEqual((job["attempt"], job["reason"]), (3, "PROCESS_CRASHED"))
        self.assertEqual([one["job"] for one in worker.evidence("began")], [job["id"], job["id"] + "-2", job["id"] + "-3"])

    def test_drains_when_it_is_asked_to_stop(self):
        worker = self.start("js-drains", LOG_LEVEL="debug")
        first = self.cluster.dispatch("js-drains", {"do": "wait", "join": True, "seconds": 8})
        self.began(worker)
        self.state(first, "RUNNING", 60)
        worker.process.send_signal(signal.SIGTERM)
        self.eventually(lambda: "draining worker" in worker.log(), 10, "no drain")
        second = self.cluster.dispatch("js-drains", {"do": "wait", "join": True, "seconds": 1})
        job = self.state(first, "SUCCEEDED", 40)
        self.assertEqual(job["attempt"], 1)
        worker.process.wait(60)
        self.assertEqual(len(worker.evidence("began")), 1)
        self.start("js-drains")
        self.state(second, "SUCCEEDED", 60)

    def test_rejection_leaves_the_job_to_others(self):
        self.start("js-rejects")
        dispatch = self.cluster.dispatch("js-rejects", {"answer": "reject"})
        time.sleep(1.5)
        self.assertIn(self.cluster.job(dispatch)["state"], ("PENDING", "OFFERED"))
        self.cluster.call("DELETE", f"/api/dispatches/{dispatch}")

    def test_killed_and_its_job_runs_on_the_second_worker(self):
        first = self.start("js-killed")
        dispatch = self.cluster.dispatch("js-killed", {"do": "wait"})
        self.began(first)
        self.state(dispatch, "RUNNING")
        second = self.start("js-killed")
        first.kill()
        self.eventually(lambda: self.cluster.job(dispatch).get("attempt") == 2, 20, "not given to the second")
        self.assertEqual(self.began(second)["job"], self.cluster.job(dispatch)["id"] + "-2")
        self.cluster.call("DELETE", f"/api/dispatches/{dispatch}")


class MixedPoolTest(Cases, unittest.TestCase):
    """A C++ agent server, a Python and a Node worker of one name."""

    SLOTS = {"C++": 4, "Python": 2, "Node": 2}

    @classmethod
    def setUpClass(cls):
        NodeWorkerTest.put_beside_its_packages()
        cls.cluster = Cluster("--api-server-argument=--livekit-worker-slots=2")

    def start_all(self, name):
        workers = {
            "Python": self.cluster.worker(PYTHON, name, IDLE="2"),
            "Node": self.cluster.worker(NODE, name, IDLE="2"),
            "C++": self.cluster.worker(
                [str(BIN / "parley-bench-agent"), "start", "--dev", "--health-port=0", f"--slots={self.SLOTS['C++']}",
                 "--load-threshold=1", f"--dispatch-address={self.cluster.where['dispatch-broker']}",
                 f"--rooms-address={self.cluster.where['room-server']}"], name)}
        self.eventually(lambda: self.registered(name) == 3, 90, "three workers did not register")
        return workers

    def ids(self, name):
        """Worker ids by language: only LiveKit's workers carry their label."""
        found = {}
        for worker in self.cluster.call("GET", f"/api/workers?pool={name}")["workers"]:
            label = "livekit-worker" in worker.get("labels", {})
            found[worker["id"]] = ("Node" if worker["version"].startswith("1.9") else "Python") if label else "C++"
        return found

    def test_every_dispatch_runs_once_and_shares_follow_capacity(self):
        name, count = "bench", 200
        workers = self.start_all(name)
        ids = self.ids(name)
        # As many that stay as there are slots: each has what it can hold.
        wish = {"mode": "wait", "do": "wait"}
        full = [self.cluster.dispatch(name, wish) for _ in range(sum(self.SLOTS.values()))]
        self.eventually(lambda: all(self.cluster.job(one)["state"] == "RUNNING" for one in full), 90, "not all run")
        jobs = [self.cluster.job(one) for one in full]
        shares = {language: len([job for job in jobs if ids[job["workerId"]] == language]) for language in self.SLOTS}
        self.assertEqual(shares, self.SLOTS)
        for dispatch in full:
            self.cluster.call("DELETE", f"/api/dispatches/{dispatch}")
        # And many that end: each once, whoever ran it.
        wish = {"mode": "exit", "do": "end", "join": True}
        dispatches = [self.cluster.dispatch(name, wish, room=f"room-{i}") for i in range(count)]
        ended = {}

        def all_ended():
            for dispatch in dispatches:
                if dispatch not in ended and (job := self.cluster.job(dispatch)).get("state") in ("SUCCEEDED", "FAILED"):
                    ended[dispatch] = job
            return len(ended) == count

        self.eventually(all_ended, 180, f"{count - len(ended)} jobs have not ended")
        self.assertEqual({(job["state"], job["attempt"]) for job in ended.values()}, {("SUCCEEDED", 1)})
        began = [line["job"] for language in ("Python", "Node") for line in workers[language].evidence("began")]
        self.assertEqual(len(began), len(set(began)))
        print("shares of", count, {language: len([job for job in ended.values() if ids[job["workerId"]] == language])
                                   for language in self.SLOTS})


if __name__ == "__main__":
    unittest.main()
