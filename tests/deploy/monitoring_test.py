"""What is shipped for Prometheus and Grafana against real services that a real Prometheus scrapes: every metric that a rule, a
dashboard or an autoscaler names exists, every query is taken and has an answer, docs/metrics.md is what the services serve.
Usage: monitoring_test.py SOURCE_DIR"""
import json
import os
import pathlib
import re
import subprocess
import sys
import time
import unittest

import yaml

SOURCE = pathlib.Path(sys.argv[1])
sys.path += [str(SOURCE / "k8s"), str(SOURCE / "tests" / "e2e")]
import cluster  # noqa: E402
import metrics_reference  # noqa: E402
import prometheus  # noqa: E402
import render  # noqa: E402

RULES = render.CHART / "files" / "rules.yaml"
# Served by others: Prometheus itself and kube-state-metrics.
FOREIGN = {"up", "kube_horizontalpodautoscaler_status_condition", "kube_horizontalpodautoscaler_status_current_replicas",
           "kube_horizontalpodautoscaler_spec_max_replicas"}
SILENT = re.compile(r"parley:\w+_error_ratio")  # a ratio over a window without events has no answer
WORDS = {"sum", "max", "min", "count", "by", "on", "and", "or", "unless", "rate", "increase", "absent", "histogram_quantile", "avg", "bool",
         "ignoring", "group_left", "without"}


def names_in(expression):
    """The metric names of a PromQL expression."""
    text = re.sub(r'"[^"]*"', "", expression)
    text = re.sub(r"\[[^\]]*\]", "", re.sub(r"\{[^}]*\}", "", text))
    text = re.sub(r"\b(by|on|without|ignoring|group_left)\s*\([^)]*\)", "", text)
    return {word for word in re.findall(r"[a-zA-Z_:][a-zA-Z0-9_:]*", text) if word not in WORDS}


def rules():
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def dashboards():
    for path in sorted((render.CHART / "files" / "dashboards").glob("*.json")):
        yield path.name, json.loads(path.read_text())


def panels():
    for name, board in dashboards():
        for panel in board["panels"]:
            if panel["type"] != "row":
                yield name, panel


def plain(expression):
    """A dashboard's query with Grafana's variables filled in."""
    return expression.replace("$__rate_interval", "10s").replace("$pool", ".*").replace("$instance", ".*")


def scaler_queries():
    """What the adapter asks for the autoscalers' metrics, and KEDA's triggers."""
    adapter = yaml.safe_load((render.CHART / "files" / "prometheus-adapter.yaml").read_text())
    for rule in adapter["rules"]["external"]:
        yield rule["metricsQuery"].replace("<<.Series>>", rule["seriesQuery"]).replace(",<<.LabelMatchers>>", "").replace("{<<.LabelMatchers>>}", "")
    for thing in render.render({"autoscaling": {"kind": "keda"}}):
        for trigger in thing["spec"].get("triggers", []) if thing["kind"] == "ScaledObject" else []:
            if trigger["type"] == "prometheus":
                yield trigger["metadata"]["query"]


class MonitoringTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dev = cluster.Dev()
        cls.addClassCleanup(cls.dev.close)
        cls.dev.start(env=metrics_reference.providers(cls.dev.folder.name))
        ports = {service.replace("_", "-"): [f"127.0.0.1:{port + cls.dev.offset}"] for service, port in metrics_reference.PORTS.items()}
        cls.prometheus = prometheus.Prometheus(ports, RULES)
        cls.addClassCleanup(cls.prometheus.close)
        cls.eventually(lambda: len(cls.prometheus.query("up == 1")) == len(ports), "every service scraped")
        called = cls.dev.run("call", "--agent", "front-desk", "--text", "how much is a single room")
        assert called.returncode == 0, called.stderr
        cls.pages = metrics_reference.scrape(cls.dev)
        cls.eventually(lambda: cls.prometheus.query("parley:dispatch_error_ratio:5m") and cls.prometheus.query("parley:pool_jobs"),
                       "recorded series")

    @staticmethod
    def eventually(condition, what):
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, what
            time.sleep(0.2)

    def served(self):
        """Every series name that exists: of the services, and recorded from them."""
        names = {rule["record"] for rule in rules() if "record" in rule} | FOREIGN
        for found in self.pages.values():
            for name, family in found.items():
                names |= {name + end for end in ("_bucket", "_sum", "_count")} if family[0] == "histogram" else {name}
        return names

    def test_the_reference_is_what_the_services_serve(self):
        self.assertEqual(metrics_reference.PAGE.read_text(), metrics_reference.page(self.pages), "run scripts/metrics-reference")

    def test_promtool_takes_what_the_services_serve(self):
        for service, port in metrics_reference.PORTS.items():
            text = subprocess.run(["curl", "-sf", f"http://127.0.0.1:{port + self.dev.offset}/metrics"], capture_output=True, timeout=10, check=True).stdout
            done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=30, check=False)
            self.assertEqual((done.returncode, done.stdout + done.stderr), (0, b""), service)

    def test_every_metric_that_is_named_exists(self):
        served = self.served()
        for rule in rules():
            self.assertLessEqual(names_in(rule["expr"]), served, rule)
        for name, panel in panels():
            for target in panel["targets"]:
                self.assertLessEqual(names_in(plain(target["expr"])), served, f"{name}: {panel['title']}")
        for query in scaler_queries():
            self.assertLessEqual(names_in(query), served, query)
        self.assertFalse(names_in("sum by (x) (rate(parley_no_such_total[5m])) / parley_worker_desired") <= served)

    def test_every_query_of_the_dashboards_has_an_answer(self):
        asked = 0
        for name, panel in panels():
            for target in panel["targets"]:
                answer = self.prometheus.query(plain(target["expr"]))
                asked += 1
                if not SILENT.match(target["expr"]):
                    self.assertTrue(answer, f"{name}: {panel['title']}: {target['expr']}")
        print(asked, "queries")

    def test_every_query_of_rules_and_autoscalers_is_taken(self):
        for rule in rules():
            self.prometheus.query(rule["expr"])
        for query in scaler_queries():
            self.assertTrue(self.prometheus.query(query), f"{query}: an autoscaler would have no metric")
        with self.assertRaises(ValueError):
            self.prometheus.query("sum(")

    def test_rules_evaluate_and_nothing_fires_in_a_healthy_cluster(self):
        for group in self.prometheus.get("/api/v1/rules")["groups"]:
            for rule in group["rules"]:
                self.assertEqual(rule["health"], "ok", rule.get("lastError"))
        firing = [a["labels"]["alertname"] for a in self.prometheus.get("/api/v1/alerts")["alerts"] if a["state"] == "firing"]
        self.assertEqual(firing, [])

    def test_dashboards_are_well_formed(self):
        boards = dict(dashboards())
        self.assertEqual(sorted(boards), ["agent.json", "cluster.json", "dispatch.json", "gateways.json"])
        for name, board in boards.items():
            ids = [p["id"] for p in board["panels"]]
            self.assertEqual(len(ids), len(set(ids)), name)
            places = set()
            for panel in board["panels"]:
                place = panel["gridPos"]
                self.assertLessEqual(place["x"] + place["w"], 24, panel["title"])
                self.assertNotIn((place["x"], place["y"]), places, f"{name}: {panel['title']} lies over another")
                places.add((place["x"], place["y"]))
                if panel["type"] != "row":
                    self.assertTrue(panel["fieldConfig"]["defaults"]["unit"], panel["title"])
                    self.assertEqual(panel["datasource"]["uid"], "${datasource}", panel["title"])


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    unittest.main(argv=[sys.argv[0]], verbosity=2)
