"""A real Prometheus for tests: scrapes what it is told to, evaluates our rules, gone at the end."""
import json
import pathlib
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

import yaml


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Prometheus:
    """`targets`: job → list of host:port. With `watch` the targets are read from a file that set_targets writes."""

    def __init__(self, targets, rules, interval="500ms"):
        self.folder = tempfile.TemporaryDirectory()
        self.path = pathlib.Path(self.folder.name)
        self.url = f"http://127.0.0.1:{free_port()}"
        groups = yaml.safe_load(pathlib.Path(rules).read_text())
        for group in groups["groups"]:
            group["interval"] = interval  # the shipped ones are for days, a test has minutes
        (self.path / "rules.yaml").write_text(yaml.safe_dump(groups))
        self.set_targets(targets)
        config = {"global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
                  "rule_files": ["rules.yaml"],
                  "scrape_configs": [{"job_name": "parley", "file_sd_configs": [{"files": ["targets.json"]}]}]}
        (self.path / "prometheus.yaml").write_text(yaml.safe_dump(config))
        with open(self.path / "log", "wb") as log:
            self.process = subprocess.Popen(
                ["prometheus", f"--config.file={self.path}/prometheus.yaml", f"--storage.tsdb.path={self.path}/data",
                 f"--web.listen-address={self.url.removeprefix('http://')}", "--log.level=warn"], stdout=log, stderr=log)
        deadline = time.monotonic() + 20
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("prometheus did not start:\n" + (self.path / "log").read_text()[-2000:])
            time.sleep(0.1)

    def set_targets(self, targets):
        made = [{"targets": hosts, "labels": {"job": job}} for job, hosts in targets.items()]
        new = self.path / "targets.json.new"
        new.write_text(json.dumps(made))
        new.rename(self.path / "targets.json")

    def _answers(self):
        try:
            with urllib.request.urlopen(self.url + "/-/ready", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False

    def query(self, expression):
        """The samples of an instant query: (labels, value). ValueError with Prometheus' words when it does not take it."""
        url = f"{self.url}/api/v1/query?" + urllib.parse.urlencode({"query": expression})
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                result = json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise ValueError(f"{expression}: {error.read().decode()}") from error
        if result["resultType"] == "scalar":
            return [({}, float(result["result"][1]))]
        return [(sample["metric"], float(sample["value"][1])) for sample in result["result"]]

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            return json.load(answer)["data"]

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.folder.cleanup()
