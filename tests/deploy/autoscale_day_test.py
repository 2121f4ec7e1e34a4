"""The whole loop of autoscaling on one machine: real services under a compressed day of real calls, a real Prometheus that scrapes
them, the chart's own HorizontalPodAutoscaler and adapter rules decided over PromQL, agent servers as processes. Brokers tell an API
which pods cost most to take, as they tell Kubernetes. A call counts as uncut only if its agent still knows what it was told.

Usage: autoscale_day_test.py [--seconds S] [--peak N] [--slots N] [--mean-call S] [--compress K] [--judge]
--judge holds the run to the targets: queue wait p99 after a spike ≤ 1 s, worker-seconds ≤ 1.2 times the oracle's."""
import argparse
import collections
import http.server
import json
import math
import os
import pathlib
import re
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time

import yaml

SOURCE, BIN = pathlib.Path(os.environ["PARLEY_SOURCE_DIR"]), pathlib.Path(os.environ["PARLEY_BIN_DIR"])
sys.path.insert(0, str(SOURCE / "k8s"))
import hpa  # noqa: E402
import prometheus  # noqa: E402
import render  # noqa: E402

SYNC_S = 15         # of Kubernetes' controller; divided like everything else, but no quicker than
FASTEST_SYNC_S = 0.25
TOKEN = "token-of-the-service-account"


class PodApi:
    """The one call that brokers make to Kubernetes' API, over TLS: PATCH of a pod's deletion cost."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        path = pathlib.Path(self.folder.name)
        (path / "token").write_text(TOKEN)
        (path / "namespace").write_text("parley")
        certificate, key = hpa.self_signed(path)
        self.costs, self.refused, self.patches = {}, [], 0
        api = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_PATCH(self):  # pylint: disable=invalid-name
                body = self.rfile.read(int(self.headers["content-length"]))
                status = api.patch(self.path, self.headers, json.loads(body))
                self.send_response(status)
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *arguments):  # pylint: disable=arguments-differ
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def patch(self, path, headers, body):
        match = re.fullmatch(r"/api/v1/namespaces/parley/pods/([a-z0-9-]+)", path)
        right = headers.get("authorization") == f"Bearer {TOKEN}" and headers.get("content-type") == "application/merge-patch+json"
        if not match or not right:
            self.refused.append(path)
            return 403
        self.patches += 1
        self.costs[match.group(1)] = int(body["metadata"]["annotations"]["controller.kubernetes.io/pod-deletion-cost"])
        return 200

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.folder.cleanup()


class ReplicaSet:
    """Agent servers as processes. Goes as Kubernetes does: not ready before ready, cheap before dear, new before old."""

    def __init__(self, addresses, slots, costs, folder):
        self.addresses, self.slots, self.costs, self.folder = addresses, slots, costs, folder
        self.servers, self.draining, self.exits, self.started, self.seconds = {}, {}, [], 0, 0.0
        self.since = {}

    def start(self):
        self.started += 1
        name = f"agent-server-{self.started}"
        flags = {"dispatch": "dispatch-broker", "rooms": "room-server", "stt": "stt-gateway", "tts": "tts-gateway", "llm": "llm-gateway"}
        command = [BIN / "parley-agent-server", "start", "--dev", "--health-port", "0", "--slots", str(self.slots), "--drain", "3h",
                   "--load-threshold", "1"]  # many share this machine: its load says nothing about one of them
        for flag, service in flags.items():
            command += [f"--{flag}-address", self.addresses[service]["grpc"]]
        with open(self.folder / f"{name}.log", "wb") as log:
            self.servers[name] = subprocess.Popen([str(c) for c in command], stdout=log, stderr=log, env={**os.environ, "POD_NAME": name})
        self.since[name] = time.monotonic()

    def ready(self, name):
        return "ready for jobs" in (self.folder / f"{name}.log").read_text(errors="replace")

    def scale(self, wanted):
        for _ in range(wanted - len(self.servers)):
            self.start()
        order = sorted(self.servers, key=lambda n: (self.ready(n), self.costs.get(n, 0), -self.since[n]))
        for name in order[:max(0, len(self.servers) - wanted)]:
            self.servers[name].send_signal(signal.SIGTERM)
            self.draining[name] = self.servers.pop(name)

    def reap(self):
        for name, process in list(self.draining.items()):
            if process.poll() is not None:
                self.exits.append((name, process.returncode))
                self.seconds += time.monotonic() - self.since[name]
                del self.draining[name]
        died = [name for name, process in self.servers.items() if process.poll() is not None]
        assert not died, f"{died} ended by themselves:\n" + (self.folder / f"{died[0]}.log").read_text()[-2000:]

    def worker_seconds(self):
        now = time.monotonic()
        return self.seconds + sum(now - self.since[name] for name in [*self.servers, *self.draining])

    def close(self):
        for process in [*self.servers.values(), *self.draining.values()]:
            process.kill()
            process.wait()


def rank(values, share):
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def manifest_of(slots):
    """The chart's autoscaler of a pool of such servers, and its adapter's rules."""
    (pool,) = yaml.safe_load((render.CHART / "values.yaml").read_text())["agentServers"]
    pool.update(slots=slots)
    pool["autoscaling"]["min"] = 1
    objects = render.render({"autoscaling": {"kind": "hpa"}, "agentServers": [pool]})
    (manifest,) = [o for o in objects if o["kind"] == "HorizontalPodAutoscaler" and o["metadata"]["name"] == "agent-server"]
    return manifest, yaml.safe_load((render.CHART / "files" / "prometheus-adapter.yaml").read_text())


class Day:
    def __init__(self, options):
        self.options, self.calls, self.live, self.over = options, [], [], False
        self.folder = tempfile.TemporaryDirectory()
        self.api = PodApi()
        arguments = ["--broker-placement", "pack", "--kubernetes-pod-costs", "true", "--kubernetes-api", self.api.url,
                     "--kubernetes-credentials", self.api.folder.name, "--kubernetes-interval", "250ms"]
        command = [BIN / "parley-day-calls", "--seconds", options.seconds, "--peak", options.peak, "--mean-call", options.mean_call]
        command += [f"--broker-argument={a}" for a in arguments]
        with open(pathlib.Path(self.folder.name) / "calls.log", "wb") as log:
            self.process = subprocess.Popen([str(c) for c in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        first = self.process.stdout.readline()
        assert first, "the cluster did not start:\n" + (pathlib.Path(self.folder.name) / "calls.log").read_text()[-3000:]
        self.addresses = json.loads(first)["cluster"]
        manifest, adapter = manifest_of(options.slots)
        self.hpa = hpa.Hpa(manifest, adapter, options.compress)
        self.minimum = manifest["spec"]["minReplicas"]
        targets = {service: [where["admin"]] for service, where in self.addresses.items()}
        self.prometheus = prometheus.Prometheus(targets, render.CHART / "files" / "rules.yaml", "250ms")
        self.replicas = ReplicaSet(self.addresses, options.slots, self.api.costs, pathlib.Path(self.folder.name))
        self.sizes = collections.Counter()

    def read_calls(self):
        for text in self.process.stdout:
            line = json.loads(text)
            if "call" in line:
                self.calls.append(line)
            elif "live" in line:
                self.live.append(line)
            elif "over" in line:
                self.over = True

    def sync(self, start):
        self.replicas.reap()
        current = len(self.replicas.servers)
        wanted = self.hpa.decide(time.monotonic() - start, current, self.prometheus.query)
        self.replicas.scale(wanted)
        self.sizes[wanted] += 1

    def run(self):
        self.replicas.scale(self.minimum)
        deadline = time.monotonic() + 30
        while not (self.prometheus.query("parley_worker_desired") and self.replicas.ready("agent-server-1")):
            assert time.monotonic() < deadline, "the first agent server did not appear in Prometheus"
            time.sleep(0.1)
        reader = threading.Thread(target=self.read_calls, daemon=True)
        reader.start()
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        start, before = time.monotonic(), self.replicas.worker_seconds()
        every = max(FASTEST_SYNC_S, SYNC_S / self.options.compress)
        while not self.over:
            assert self.process.poll() is None, "the calls ended early"
            assert time.monotonic() - start < self.options.seconds * 2 + 120, "the day does not end"
            self.sync(start)
            time.sleep(every)
        self.worker_seconds = self.replicas.worker_seconds() - before
        deadline = time.monotonic() + 60
        while len(self.replicas.servers) > self.minimum or self.replicas.draining:
            assert time.monotonic() < deadline, f"{len(self.replicas.servers)} servers are left, {len(self.replicas.draining)} drain"
            self.sync(start)
            time.sleep(every)

    def oracle_seconds(self):
        total = 0.0
        for before, after in zip(self.live, self.live[1:]):
            total += (after["at_s"] - before["at_s"]) * max(self.minimum, math.ceil(before["live"] / self.options.slots))
        return total

    def report(self):
        cut = [c for c in self.calls if not c["uncut"]]
        spikes = [s * self.options.seconds for s in (0.3, 0.62)]
        waits = [c["wait_ms"] for c in self.calls if "wait_ms" in c]
        after = [c["wait_ms"] for c in self.calls if "wait_ms" in c and any(s <= c["due_s"] < s + 0.02 * self.options.seconds for s in spikes)]
        oracle = self.oracle_seconds()
        result = {"calls": len(self.calls), "cut": len(cut), "most at once": max(l["live"] for l in self.live),
                  "wait p50 ms": rank(waits, 0.5), "wait p99 ms": rank(waits, 0.99), "after spikes: n": len(after),
                  "after spikes: wait p99 ms": rank(after, 0.99), "worker-seconds": round(self.worker_seconds),
                  "oracle's": round(oracle), "ratio": round(self.worker_seconds / oracle, 3), "servers at most": max(self.sizes),
                  "servers started": self.replicas.started, "pod costs told": self.api.patches}
        print(json.dumps(result))
        for call in cut[:5]:
            print("cut:", json.dumps(call))
        return result

    def close(self):
        self.replicas.close()
        self.prometheus.close()
        self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.api.close()
        self.folder.cleanup()


def check_algorithm():
    """What a real control plane was seen to do: queue 40 at 4 each, +4 per 15 s: 2, 6, 10; queue 0, -1 per 15 s: a step each 15 s."""
    behavior = {"scaleUp": {"stabilizationWindowSeconds": 0, "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}]},
                "scaleDown": {"stabilizationWindowSeconds": 20, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 15}]}}
    metric = {"type": "External", "external": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "4"}}}
    manifest = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
                "spec": {"minReplicas": 2, "maxReplicas": 40, "metrics": [metric], "behavior": behavior}}
    adapter = {"rules": {"external": [{"seriesQuery": "m", "metricsQuery": "sum(<<.Series>>{<<.LabelMatchers>>})"}]}}
    made = hpa.Hpa(manifest, adapter)
    full, empty = (lambda query: [({}, 40.0)]), (lambda query: [({}, 0.0)])
    assert [made.decide(2, 2, full), made.decide(9, 6, full), made.decide(17.1, 6, full), made.decide(32, 10, full)] == [6, 6, 10, 10]
    assert made.decide(33, 10, lambda query: []) == 10, "no metric, no change"
    steps, replicas = [], 10
    for now in range(60, 260):
        wanted = made.decide(now, replicas, empty)
        if wanted < replicas:
            steps.append(now)
        replicas = wanted
    assert replicas == 2 and len(steps) == 8 and {b - a for a, b in zip(steps, steps[1:])} == {15}, steps


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--peak", type=int, default=120)
    parser.add_argument("--slots", type=int, default=20)
    parser.add_argument("--mean-call", type=float, default=15)
    parser.add_argument("--compress", type=float, default=144)
    parser.add_argument("--judge", action="store_true")
    options = parser.parse_args()
    check_algorithm()
    day = Day(options)
    try:
        day.run()
        result = day.report()
        assert result["calls"] > 0 and result["cut"] == 0, "calls were cut"
        assert result["servers at most"] > 1 and day.replicas.exits, "it never scaled"
        assert all(code == 0 for _, code in day.replicas.exits), day.replicas.exits
        assert not day.api.refused and result["pod costs told"] > 0, day.api.refused
        if options.judge:
            assert result["after spikes: wait p99 ms"] <= 1000, "callers waited too long after a spike"
            assert result["ratio"] <= 1.2, "too many agent servers"
    finally:
        day.close()


if __name__ == "__main__":
    main()
