"""The Grafana dashboards, as tables; written to chart/files/dashboards by scripts/render-k8s.

A panel is (title, unit, [(query, legend)]). $__rate_interval and the variables are Grafana's.
"""
import json
import pathlib

OUT = pathlib.Path(__file__).resolve().parent / "chart" / "files" / "dashboards"
RATE = "[$__rate_interval]"


def quantiles(metric, selector="", by=""):
    """p50, p90 and p99 of a histogram."""
    groups = "le, " + by if by else "le"
    legend = " {{" + by + "}}" if by else ""
    return [(f"histogram_quantile({q}, sum by ({groups}) (rate({metric}_bucket{selector}{RATE})))", f"p{int(q * 100)}{legend}")
            for q in (0.5, 0.9, 0.99)]


def rate(metric, selector="", by="", legend=""):
    total = f"sum by ({by}) " if by else "sum"
    return (f"{total}(rate({metric}{selector}{RATE}))", legend or ("{{" + by + "}}" if by else metric))


POOL = '{pool=~"$pool"}'
ONE = '{instance=~"$instance"}'

DASHBOARDS = {
    "cluster": ("Parley: cluster", {}, [
        ("Calls", [
            ("Live jobs by pool", "short", [("max by (pool) (parley_dispatch_held_jobs)", "{{pool}}")]),
            ("People and agents in rooms", "short", [("sum by (kind) (parley_room_participants)", "{{kind}}")]),
            ("Rooms by server", "short", [("sum by (instance) (parley_room_rooms)", "{{instance}}")]),
        ]),
        ("Capacity", [
            ("Slots by state", "short", [('max by (pool, state) (parley_worker_slots{pool!=""})', "{{pool}} {{state}}")]),
            ("Agent servers: there and wanted", "short", [("max by (pool) (parley_worker_registered)", "{{pool}} registered"),
                                                         ("max by (pool) (parley_worker_desired)", "{{pool}} needed")]),
            ("Share of the slots in use", "percentunit", [
                ('parley:pool_jobs / on (pool) sum by (pool) (max by (pool, state) (parley_worker_slots{pool!=""}))', "{{pool}}")]),
            ("CPU load of agent servers", "percentunit", [("parley_worker_load_ratio", "{{instance}}")]),
        ]),
        ("Service levels (share of bad events)", [
            ("Dispatches without an agent", "percentunit", [("parley:dispatch_error_ratio:1h", "1 h"), ("parley:dispatch_error_ratio:6h", "6 h")]),
            ("Agents that start late", "percentunit", [("parley:start_error_ratio:1h", "1 h"), ("parley:start_error_ratio:6h", "6 h")]),
            ("Answers that come late", "percentunit", [("parley:turn_error_ratio:1h", "1 h"), ("parley:turn_error_ratio:6h", "6 h")]),
        ]),
        ("Edge", [
            ("HTTP requests", "reqps", [rate("parley_api_requests_total", by="status")]),
            ("HTTP latency", "s", quantiles("parley_api_request_seconds")),
            ("Joins", "ops", [rate("parley_room_joins_total", by="outcome")]),
            ("Admission to rooms", "s", quantiles("parley_room_admission_seconds")),
            ("Audio frames of rooms", "ops", [rate("parley_room_frames_total", by="direction"), rate("parley_room_frames_dropped_total", by="cause", legend="dropped: {{cause}}")]),
            ("Redis as brokers see it", "bool_yes_no", [("min(parley_dispatch_store_available)", "reachable")]),
        ]),
    ]),
    "dispatch": ("Parley: dispatch", {"pool": "label_values(parley_dispatch_pending_jobs, pool)"}, [
        ("Queue", [
            ("Jobs that wait", "short", [(f"max by (pool) (parley_dispatch_pending_jobs{POOL})", "{{pool}}")]),
            ("The oldest of them waits", "s", [(f"max by (pool) (parley_dispatch_oldest_pending_seconds{POOL})", "{{pool}}")]),
            ("Free slots", "short", [(f"parley:pool_free_slots{POOL}", "{{pool}}")]),
        ]),
        ("Latency", [
            ("Create until durable", "s", quantiles("parley_dispatch_create_seconds")),
            ("Create until a server has it", "s", quantiles("parley_dispatch_queue_wait_seconds")),
            ("Create until it runs", "s", quantiles("parley_dispatch_created_to_running_seconds")),
            ("Assignment until the entrypoint runs", "s", quantiles("parley_worker_job_launch_seconds")),
        ]),
        ("Flow", [
            ("Creates", "ops", [rate("parley_dispatch_created_total", legend="created"), rate("parley_dispatch_repeated_total", legend="known already"),
                                rate("parley_dispatch_refused_total", by="reason", legend="refused: {{reason}}")]),
            ("Matches, offers, rejections", "ops", [rate("parley_dispatch_matches_total", legend="matched"), rate("parley_dispatch_offers_total", legend="asked first"),
                                                    rate("parley_dispatch_rejections_total", legend="turned down")]),
            ("What went wrong", "ops", [rate("parley_dispatch_attempts_lost_total", legend="attempts lost"), rate("parley_dispatch_redispatched_total", legend="run again"),
                                        rate("parley_dispatch_deadline_passed_total", legend="deadline passed"), rate("parley_worker_stale_words_total", legend="stale words")]),
            ("Jobs that ended, by reason", "ops", [rate("parley_worker_jobs_ended_total", by="reason")]),
        ]),
        ("Agent servers", [
            ("Streams by broker", "short", [("sum by (instance) (parley_worker_streams)", "{{instance}}")]),
            ("Servers that went without a goodbye", "ops", [rate("parley_worker_leases_lost_total", legend="silent"), rate("parley_worker_deaths_reported_total", legend="reported dead")]),
            ("Connections refused", "ops", [rate("parley_worker_refused_total", legend="refused")]),
        ]),
        ("Rooms and webhooks", [
            ("Dispatches of rooms", "ops", [rate("parley_room_dispatches_total", by="outcome"), rate("parley_room_dispatch_retries_total", legend="asked again")]),
            ("Rooms that wait for a broker", "short", [("max(parley_room_dispatches_pending)", "dispatches")]),
            ("Webhooks", "ops", [rate("parley_webhook_sent_total", legend="taken"), rate("parley_webhook_retries_total", legend="tried again"),
                                 rate("parley_webhook_dropped_total", legend="dropped")]),
            ("Put back after a loss of Redis", "ops", [rate("parley_dispatch_replayed_total", by="fact")]),
        ]),
    ]),
    "gateways": ("Parley: speech gateways", {}, [
        ("Listening", [
            ("Open streams", "short", [("sum by (instance) (parley_stt_streams_active)", "{{instance}}")]),
            ("Seconds of audio a second", "short", [rate("parley_stt_audio_seconds_total", legend="audio")]),
            ("A recogniser is ready after", "s", quantiles("parley_stt_open_seconds", by="engine")),
            ("First result after", "s", quantiles("parley_stt_first_result_seconds", by="engine")),
            ("Final after the end of an utterance", "s", quantiles("parley_stt_final_seconds", by="engine")),
            ("Utterances, fallbacks", "ops", [rate("parley_stt_utterances_total", legend="utterances"), rate("parley_stt_fallbacks_total", legend="fallbacks")]),
            ("Errors", "ops", [rate("parley_stt_errors_total", by="code")]),
        ]),
        ("Thinking", [
            ("Answers being made", "short", [("sum by (instance) (parley_llm_chats_active)", "{{instance}}")]),
            ("First piece after", "s", quantiles("parley_llm_first_piece_seconds", by="engine")),
            ("Tokens", "ops", [rate("parley_llm_tokens_total", by="direction")]),
            ("Fallbacks and errors", "ops", [rate("parley_llm_fallbacks_total", legend="fallbacks"), rate("parley_llm_errors_total", by="code")]),
        ]),
        ("Speaking", [
            ("Open streams", "short", [("sum by (instance) (parley_tts_streams_active)", "{{instance}}")]),
            ("First audio after", "s", quantiles("parley_tts_first_audio_seconds", by="engine")),
            ("Characters", "cps", [rate("parley_tts_characters_total", legend="characters")]),
            ("Seconds of audio a second", "short", [rate("parley_tts_audio_seconds_total", legend="audio")]),
            ("Cut off, fallbacks", "ops", [rate("parley_tts_cancelled_total", legend="cut off"), rate("parley_tts_fallbacks_total", legend="fallbacks")]),
            ("Errors", "ops", [rate("parley_tts_errors_total", by="code")]),
        ]),
        ("Budgets of providers' keys", [
            ("Places taken, of all", "percentunit", [
                ('sum by (job, engine) (parley_budget_streams_held{key="operator"}) / on (job, engine) (max by (job, engine) (parley_budget_limit{key="operator",of="streams"}) > 0)',
                 "{{job}} {{engine}}")]),
            ("Waiting for a place", "short", [("sum by (job, engine, key) (parley_budget_waiting)", "{{job}} {{engine}} {{key}}")]),
            ("Found no place, stopped by a cap", "ops", [
                (f"sum by (job, engine, key) (rate(parley_budget_refused_total{RATE}))", "{{job}} {{engine}} {{key}}"),
                (f"sum by (job) (rate(parley_spend_cap_refused_total{RATE}))", "{{job}} cap")]),
            ("Replicas without Redis", "short", [("sum by (job, engine, key) (1 - parley_budget_shared)", "{{job}} {{engine}} {{key}}")]),
        ]),
    ]),
    "agent": ("Parley: one agent server", {"instance": "label_values(parley_worker_broker_connected, instance)"}, [
        ("Answers", [
            ("End of speech to first audio", "s", quantiles("parley_worker_turn_seconds", '{part="total",instance=~"$instance"}')),
            ("Where the time goes (p90)", "s", [
                (f'histogram_quantile(0.9, sum by (le, part) (rate(parley_worker_turn_seconds_bucket{{part!="total",instance=~"$instance"}}{RATE})))', "{{part}}")]),
            ("Turns", "ops", [rate("parley_worker_turn_seconds_count", '{part="total",instance=~"$instance"}', legend="turns")]),
            ("Tools", "s", quantiles("parley_worker_tool_seconds", ONE)),
            ("Tools that failed", "ops", [rate("parley_worker_tool_errors_total", ONE, legend="errors")]),
        ]),
        ("Jobs", [
            ("Slots", "short", [('sum by (state) (parley_worker_slots{pool="",instance=~"$instance"})', "{{state}}")]),
            ("Warm processes", "short", [(f"sum(parley_worker_warm_processes{ONE})", "warm")]),
            ("Assignment until the entrypoint runs", "s", quantiles("parley_worker_job_launch_seconds", ONE)),
            ("Jobs that ended, by reason", "ops", [rate("parley_worker_jobs_ended_total", ONE, by="reason")]),
            ("Processes that never started", "ops", [rate("parley_worker_start_failures_total", ONE, legend="failed")]),
            ("System calls refused, log lines dropped", "ops", [rate("parley_worker_job_refused_calls_total", ONE, legend="refused calls"),
                                                                rate("parley_worker_job_log_lines_dropped_total", ONE, legend="lines")]),
        ]),
        ("Machine and links", [
            ("CPU load as the broker sees it", "percentunit", [(f"parley_worker_load_ratio{ONE}", "{{instance}}")]),
            ("Registered with a broker", "bool_yes_no", [(f"parley_worker_broker_connected{ONE}", "{{instance}}")]),
            ("Links that broke", "ops", [rate("parley_worker_broker_reconnects_total", ONE, legend="broker"), rate("parley_worker_media_stream_breaks_total", ONE, legend="room server")]),
            ("Audio frames", "ops", [rate("parley_worker_media_frames_total", ONE, by="direction")]),
            ("Frames that came too late", "ops", [rate("parley_worker_media_late_frames_total", ONE, by="direction")]),
        ]),
    ]),
}


def panel(number, title, unit, targets, x, y):
    return {"id": number, "type": "timeseries", "title": title, "datasource": {"type": "prometheus", "uid": "${datasource}"},
            "gridPos": {"h": 7, "w": 6, "x": x, "y": y},
            "fieldConfig": {"defaults": {"unit": unit, "custom": {"fillOpacity": 8, "showPoints": "never"}}, "overrides": []},
            "options": {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True}, "tooltip": {"mode": "multi", "sort": "desc"}},
            "targets": [{"refId": chr(ord("A") + i), "expr": expr, "legendFormat": legend,
                         "datasource": {"type": "prometheus", "uid": "${datasource}"}} for i, (expr, legend) in enumerate(targets)]}


def variable(name, query):
    return {"name": name, "type": "query", "datasource": {"type": "prometheus", "uid": "${datasource}"}, "query": query, "refresh": 2,
            "includeAll": True, "multi": True, "current": {"text": "All", "value": "$__all"}}


def dashboard(name):
    title, variables, rows = DASHBOARDS[name]
    panels, number, y = [], 1, 0
    for row, content in rows:
        panels.append({"id": number, "type": "row", "title": row, "collapsed": False, "gridPos": {"h": 1, "w": 24, "x": 0, "y": y}, "panels": []})
        number, y = number + 1, y + 1
        for i, (heading, unit, targets) in enumerate(content):
            panels.append(panel(number, heading, unit, targets, 6 * (i % 4), y + 7 * (i // 4)))
            number += 1
        y += 7 * ((len(content) + 3) // 4)
    source = {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"}
    return {"uid": f"parley-{name}", "title": title, "tags": ["parley"], "schemaVersion": 39, "editable": True, "refresh": "10s",
            "time": {"from": "now-1h", "to": "now"}, "timezone": "browser",
            "templating": {"list": [source] + [variable(n, q) for n, q in variables.items()]}, "annotations": {"list": []}, "panels": panels}


def texts():
    """Each file's name and text."""
    return {f"{name}.json": json.dumps(dashboard(name), indent=1) + "\n" for name in DASHBOARDS}


def write():
    OUT.mkdir(parents=True, exist_ok=True)
    for name, text in texts().items():
        (OUT / name).write_text(text)
