"""A HorizontalPodAutoscaler decided from its manifest, as Kubernetes documents it: written apart from libs/autoscale, so that the
two can be wrong only in different ways. Times in seconds, passed in; `compress` divides every window and period."""
import math
import subprocess

TOLERANCE = 0.1


def quantity(text):
    suffixes = {"m": 1e-3, "k": 1e3, "M": 1e6}
    return float(text[:-1]) * suffixes[text[-1]] if text[-1] in suffixes else float(text)


class Hpa:
    def __init__(self, manifest, adapter, compress=1.0):
        assert (manifest["apiVersion"], manifest["kind"]) == ("autoscaling/v2", "HorizontalPodAutoscaler")
        self.spec, self.compress = manifest["spec"], compress
        self.queries = {}
        for rule in adapter["rules"]["external"]:
            self.queries[rule.get("name", {}).get("as", rule["seriesQuery"])] = rule
        self.recommended, self.added, self.removed = [], [], []

    def query(self, metric):
        """What the adapter asks Prometheus for an External metric."""
        rule = self.queries[metric["name"]]
        matchers = ",".join(f'{k}="{v}"' for k, v in metric.get("selector", {}).get("matchLabels", {}).items())
        return rule["metricsQuery"].replace("<<.Series>>", rule["seriesQuery"]).replace("<<.LabelMatchers>>", matchers)

    def proposed(self, current, read):
        highest, unknown = None, False
        for metric in self.spec["metrics"]:
            if metric["type"] != "External":
                continue
            samples = read(self.query(metric["external"]["metric"]))
            if not samples:
                unknown = True
                continue
            value, target = sum(v for _, v in samples), metric["external"]["target"]
            assert target["type"] == "AverageValue", target
            per = quantity(target["averageValue"])
            wanted = current if abs(1 - value / (per * current)) <= TOLERANCE else math.ceil(value / per)
            highest = wanted if highest is None else max(highest, wanted)
        if highest is None:
            return current
        return max(highest, current) if unknown else highest

    def limit(self, now, current, rules, up):
        limits = []
        for policy in rules["policies"]:
            since = now - policy["periodSeconds"] / self.compress
            start = current - sum(n for at, n in self.added if at > since) + sum(n for at, n in self.removed if at > since)
            change = policy["value"] / 100 * start if policy["type"] == "Percent" else policy["value"]
            limits.append(math.ceil(start + change) if up else math.floor(start - change))
        choose = max if (rules.get("selectPolicy", "Max") == "Max") == up else min
        return max(current, choose(limits)) if up else min(current, choose(limits))

    def decide(self, now, current, read):
        """How many replicas there should be; `read` answers a query with [(labels, value)]."""
        low, high = self.spec["minReplicas"], self.spec["maxReplicas"]
        up, down = self.spec["behavior"]["scaleUp"], self.spec["behavior"]["scaleDown"]
        proposal = self.proposed(current, read)
        windows = [rules["stabilizationWindowSeconds"] / self.compress for rules in (up, down)]
        lowest = min([proposal] + [n for at, n in self.recommended if at > now - windows[0]])
        highest = max([proposal] + [n for at, n in self.recommended if at > now - windows[1]])
        self.recommended = [(at, n) for at, n in self.recommended if at > now - max(windows)] + [(now, proposal)]
        desired = min(max(current, lowest), highest)
        if desired > current:
            desired = min(desired, self.limit(now, current, up, True), high)
            self.added.append((now, desired - current))
        elif desired < current:
            desired = max(desired, self.limit(now, current, down, False), low)
            self.removed.append((now, current - desired))
        return min(max(desired, low), high)


def self_signed(folder):
    """A certificate for 127.0.0.1; answers the paths of certificate and key."""
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=kubernetes", "-addext",
                    "subjectAltName=IP:127.0.0.1", "-keyout", f"{folder}/api.key", "-out", f"{folder}/ca.crt"],
                   check=True, capture_output=True, timeout=30)
    return f"{folder}/ca.crt", f"{folder}/api.key"
