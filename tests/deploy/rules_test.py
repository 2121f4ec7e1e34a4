"""Every alert of k8s/chart/files/rules.yaml fires when it should and is silent when it should not, in promtool's own tests; every
alert has a runbook. Usage: rules_test.py SOURCE_DIR"""
import pathlib
import subprocess
import sys
import tempfile
import unittest

import yaml

SOURCE = pathlib.Path(sys.argv[1])
sys.path.insert(0, str(SOURCE / "k8s"))
import render  # noqa: E402

RULES = render.CHART / "files" / "rules.yaml"

# alert: (series with trouble, when it fires, series without, labels it must carry). Series as promtool writes them, a value each
# minute: a+bxn rises by b, n times.
QUIET = "0x90"
BURNS = {
    "ParleyDispatchErrorBudgetBurn": ("parley_dispatch_deadline_passed_total", "parley_dispatch_created_total", 0.001),
    "ParleyStartErrorBudgetBurn": ('parley_dispatch_created_to_running_seconds_bucket{le="1"}', "parley_dispatch_created_to_running_seconds_count", 0.01),
    "ParleyTurnErrorBudgetBurn": ('parley_worker_turn_seconds_bucket{le="1",part="total"}', 'parley_worker_turn_seconds_count{part="total"}', 0.05),
}
HPA = 'kube_horizontalpodautoscaler_{}{{namespace="parley",horizontalpodautoscaler="agent-server"{}}}'
CASES = {
    "ParleyRedisUnavailable": (['parley_dispatch_store_available{instance="a"} 1x20', 'parley_dispatch_store_available{instance="b"} 1 1 0x20'], "5m",
                               ['parley_dispatch_store_available{instance="a"} 1 0 1x20'], {}),
    "ParleyQueueStuck": (['parley_dispatch_oldest_pending_seconds{pool="default",instance="a"} 0 21 40 60 60 60'], "4m",
                         ['parley_dispatch_oldest_pending_seconds{pool="default"} 0 19x20'], {"pool": "default"}),
    "ParleyPoolWithoutServers": (['parley_worker_registered{pool="p"} 0x20', 'parley_dispatch_pending_jobs{pool="p"} 0 2x20'], "4m",
                                 ['parley_worker_registered{pool="p"} 0x20', 'parley_dispatch_pending_jobs{pool="p"} 0x20'], {"pool": "p"}),
    "ParleyNoFreeSlots": (['parley_worker_slots{pool="p",state="free"} 3 0x20', 'parley_worker_registered{pool="p"} 4x20'], "8m",
                          ['parley_worker_slots{pool="p",state="free"} 0 0 0 0 1 0 0 0 0 1 0', 'parley_worker_registered{pool="p"} 4x20'], {"pool": "p"}),
    "ParleyAttemptsLost": (["parley_dispatch_attempts_lost_total 0+2x30", "parley_dispatch_matches_total 0+10x30"], "20m",
                           ["parley_dispatch_attempts_lost_total 0+2x30", "parley_dispatch_matches_total 0+1000x30"], {}),
    "ParleyAgentServersLost": (["parley_worker_leases_lost_total 0+1x30", "parley_worker_deaths_reported_total 0x30"], "20m",
                               ["parley_worker_leases_lost_total 0x10 1x20", "parley_worker_deaths_reported_total 0x30"], {}),
    "ParleyJobProcessesFail": (['parley_worker_jobs_ended_total{reason="HUNG"} 0+1x30'], "20m",
                               ['parley_worker_jobs_ended_total{reason="PARTICIPANTS_LEFT"} 0+9x30'], {"reason": "HUNG"}),
    "ParleyDrainOverBudget": (['parley_worker_jobs_ended_total{reason="DRAIN_DEADLINE"} 0 1x30'], "5m",
                              ['parley_worker_jobs_ended_total{reason="DRAIN_DEADLINE"} 1x30'], {}),
    "ParleyAgentServerCutOff": (['parley_worker_broker_connected{instance="w"} 1 0x20'], "6m",
                                ['parley_worker_broker_connected{instance="w"} 1 0 1x20'], {"instance": "w"}),
    "ParleyAudioLate": (["parley_worker_media_late_frames_total 0+100x30", "parley_worker_media_frames_total 0+3000x30"], "15m",
                        ["parley_worker_media_late_frames_total 0+10x30", "parley_worker_media_frames_total 0+3000x30"], {}),
    "ParleyRoomLost": (["parley_room_rooms_lost_total 0 0 1x20"], "5m", ["parley_room_rooms_lost_total 4x20"], {}),
    "ParleyRoomDispatchesWait": (["parley_room_dispatches_pending 0 1x20"], "5m", ["parley_room_dispatches_pending 0 1 0 1 0 1 0x20"], {}),
    "ParleyProviderErrors": (['parley_stt_errors_total{code="unavailable"} 0+30x30', "parley_tts_errors_total 0x30", "parley_llm_errors_total 0x30"], "15m",
                             ['parley_stt_errors_total{code="cancelled"} 0+30x30', "parley_tts_errors_total 0x30", "parley_llm_errors_total 0x30"], {}),
    "ParleyFallbacks": (["parley_stt_fallbacks_total 0+6x40", "parley_tts_fallbacks_total 0x40", "parley_llm_fallbacks_total 0x40"], "30m",
                        ["parley_stt_fallbacks_total 0+1x40", "parley_tts_fallbacks_total 0x40", "parley_llm_fallbacks_total 0x40"], {}),
    "ParleyApiErrors": (['parley_api_requests_total{status="5xx"} 0+6x30', 'parley_api_requests_total{status="2xx"} 0+60x30'], "15m",
                        ['parley_api_requests_total{status="5xx"} 0+1x30', 'parley_api_requests_total{status="2xx"} 0+60x30'], {}),
    "ParleyWebhooksDropped": (["parley_webhook_dropped_total 0 1x30"], "5m", ["parley_webhook_dropped_total 7x30"], {}),
    "ParleyTargetDown": (['up{job="room-server",instance="r"} 1 0x20'], "6m", ['up{job="room-server",instance="r"} 1 0 1x20', 'up{job="other"} 0x20'],
                         {"job": "room-server"}),
    "ParleyMetricsAbsent": (["up 1x20"], "8m", ["parley_dispatch_store_available 1x20"], {}),
    "ParleyAutoscalerInactive": ([HPA.format("status_condition", ',condition="ScalingActive",status="false"') + " 0 1x20"], "8m",
                                 [HPA.format("status_condition", ',condition="ScalingActive",status="false"') + " 0x20"], {}),
    "ParleyAutoscalerAtMaximum": ([HPA.format("status_current_replicas", "") + " 5x40", HPA.format("spec_max_replicas", "") + " 5x40"], "20m",
                                  [HPA.format("status_current_replicas", "") + " 4x40", HPA.format("spec_max_replicas", "") + " 5x40"], {}),
}


def rules():
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def series(lines):
    made = []
    for line in lines:
        name, _, values = line.partition("} ") if "{" in line else line.partition(" ")
        made.append({"series": name + "}" if "{" in line else name, "values": values})
    return made


def burn(alert, share):
    """Series in which `share` of the events is bad, for an hour and a half."""
    bad, total, _ = BURNS[alert]
    good = 1 - share if "bucket" in bad else share
    lines = [f"{bad} 0+{good * 1000:g}x90", f"{total} 0+1000x90"]
    if alert == "ParleyDispatchErrorBudgetBurn":
        lines.append(f'parley_dispatch_refused_total{{reason="quota"}} {QUIET}')
    return lines


def firing(alert, **labels):
    matchers = "".join(f',{k}="{v}"' for k, v in labels.items())
    return f'count(ALERTS{{alertname="{alert}",alertstate="firing"{matchers}}})'


def case(lines, expression, at, count):
    samples = [{"labels": "{}", "value": count}] if count else []
    return {"interval": "1m", "input_series": series(lines),
            "promql_expr_test": [{"expr": expression, "eval_time": at, "exp_samples": samples}]}


class RulesTest(unittest.TestCase):
    def promtool(self, cases):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "tests.yaml"
            path.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": cases}))
            return subprocess.run(["promtool", "test", "rules", str(path)], capture_output=True, text=True, timeout=120, check=False)

    def test_promtool_takes_the_rules(self):
        done = subprocess.run(["promtool", "check", "rules", str(RULES)], capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_every_alert_fires_in_trouble_and_only_then(self):
        cases = []
        for alert, (trouble, at, calm, labels) in CASES.items():
            cases += [case(trouble, firing(alert, **labels), at, 1), case(trouble, firing(alert), "0m", 0), case(calm, firing(alert), at, 0)]
        done = self.promtool(cases)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_budgets_burn_at_three_speeds(self):
        cases = []
        for alert, (_, _, budget) in BURNS.items():
            fast, medium, slow = 20 * budget, 8 * budget, 2 * budget
            cases += [case(burn(alert, min(fast, 1)), firing(alert, severity="page", window="1h"), "80m", 1 if fast <= 1 else 0),
                      case(burn(alert, medium), firing(alert, severity="page", window="6h"), "80m", 1),
                      case(burn(alert, medium), firing(alert, severity="page", window="1h"), "80m", 0),
                      case(burn(alert, slow), firing(alert, severity="ticket", window="3d"), "80m", 1),
                      case(burn(alert, slow), firing(alert, severity="page"), "80m", 0),
                      case(burn(alert, budget / 2), firing(alert), "80m", 0)]
        done = self.promtool(cases)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_every_alert_is_tested(self):
        alerts = {rule["alert"] for rule in rules() if "alert" in rule}
        self.assertEqual(alerts, set(CASES) | set(BURNS))

    def test_a_wrong_expectation_is_noticed(self):
        trouble, at, _, _ = CASES["ParleyQueueStuck"]
        self.assertNotEqual(self.promtool([case(trouble, firing("ParleyQueueStuck"), at, 2)]).returncode, 0)

    def test_every_alert_has_a_severity_and_a_runbook(self):
        pages = set()
        for rule in rules():
            if "alert" not in rule:
                continue
            self.assertIn(rule["labels"]["severity"], ("page", "ticket"), rule["alert"])
            url = rule["annotations"]["runbook_url"]
            self.assertEqual(url, f"docs/runbooks/{rule['alert']}.md")
            text = (SOURCE / url).read_text()
            pages.add(pathlib.Path(url).name)
            for heading in ("# " + rule["alert"], "## What it means", "## Look", "## Do"):
                self.assertIn(heading + "\n", text, url)
        self.assertEqual({p.name for p in (SOURCE / "docs" / "runbooks").glob("Parley*.md")}, pages)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0]], verbosity=2)
