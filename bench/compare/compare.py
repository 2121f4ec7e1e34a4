#!/usr/bin/env python3
"""scripts/bench compare: the same agent and the same work on LiveKit's own stack and on Parley, in one run, one after the other.

    livekit         livekit-server with livekit-agents, from their packages
    parley_worker   the same worker program, unchanged, on Parley
    parley          an agent program of Parley's own SDK that does the same work

    --json FILE, --quick as every benchmark; --sides a,b   --parts created,burst,sessions,faults

What is measured: from a client's CreateDispatch (LiveKit's server API over HTTP, the same call on all sides) to the entrypoint's own
clock; a burst of dispatches; memory and CPU of everything but the callers for each further session in which agent and caller hear each
other; and what becomes of a job in eight kinds of trouble.
"""
import argparse
import base64
import concurrent.futures
import contextlib
import datetime
import hashlib
import hmac
import http.client
import json
import math
import os
import pathlib
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
BIN = pathlib.Path(os.environ["PARLEY_BIN_DIR"])
SOURCE = pathlib.Path(os.environ["PARLEY_SOURCE_DIR"])
BUILD = BIN.parent
PYTHON = BUILD / "livekit_workers/python/venv/bin/python"
KEY, SECRET = "devkey", "secret"
SIDES = {"livekit": "livekit-server + livekit-agents", "parley_worker": "Parley + livekit-agents", "parley": "Parley"}
PARTS = ("created", "burst", "sessions", "faults")


def say(text):
    print(text, file=sys.stderr, flush=True)


def token(identity="", **grants):
    def part(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=")
    claims = {"iss": KEY, "sub": identity, "nbf": int(time.time()) - 10, "exp": int(time.time()) + 7200, "video": grants}
    text = part(b'{"alg":"HS256","typ":"JWT"}') + b"." + part(json.dumps(claims).encode())
    return (text + b"." + part(hmac.new(SECRET.encode(), text, hashlib.sha256).digest())).decode()


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(**extra):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PARLEY_", "LIVEKIT_")) or k == "PARLEY_BIN_DIR"}
    return {**kept, **extra}


# ---- what the kernel says about processes ----

def tree(*roots):
    children = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError):
            stat = pathlib.Path(f"/proc/{entry}/stat").read_text()
            children.setdefault(int(stat.rsplit(")", 1)[1].split()[1]), []).append(int(entry))
    found, todo = [], list(roots)
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found


def field(path, name):
    for line in pathlib.Path(path).read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    return 0


def memory_kib(pids):
    """PSS, page tables and kernel stacks."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += field(f"/proc/{pid}/smaps_rollup", "Pss:") + field(f"/proc/{pid}/status", "VmPTE:")
            total += 16 * field(f"/proc/{pid}/status", "Threads:")
    return total


def cpu_seconds(pids):
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            ticks += sum(int(n) for n in fields[11:15])  # its own, and of children that have ended
    return ticks / os.sysconf("SC_CLK_TCK")


def alive(pid):
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def eventually(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.02)
    return found


# ---- what entrypoints report ----

class Mailbox:
    def __init__(self, folder):
        self.path = str(pathlib.Path(folder) / "mail")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.reports, self.lock = [], threading.Lock()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        while True:
            job, at_us, pid, what, room, worker = self.socket.recv(4096).decode().split()
            with self.lock:
                self.reports.append({"job": job, "at": int(at_us) / 1e6, "pid": int(pid), "what": what, "room": room, "worker": worker})

    def of(self, room, what="ran"):
        with self.lock:
            return [one for one in self.reports if one["room"] == room and one["what"] == what]


# ---- the two stacks ----

class Worker:
    """One worker, in a process group of its own with its jobs."""

    def __init__(self, command, log, env, name, registered):
        self.name, self.log_path, self.registered = name, log, registered
        with open(log, "wb") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True, env=environment(WORKER=name, **env))

    def wait_registered(self):
        eventually(lambda: self.registered in self.log_path.read_bytes(), 90, f"worker {self.name} did not register: "
                   + self.log_path.read_text(errors="replace")[-2000:])
        return self

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Side:
    """A stack that runs."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.workers, self.count = [], 0
        self.local = threading.local()

    def close(self):
        for worker in self.workers:
            worker.kill()

    def call(self, method, body, room=""):
        """LiveKit's server API; a connection for each thread. The answer, or {"code": …}."""
        headers = {"Content-Type": "application/json", "Authorization": "Bearer " + token(roomAdmin=True, room=room, roomCreate=True, roomList=True)}
        for last in (False, True):
            connection = getattr(self.local, "connection", None)
            if connection is None:
                connection = self.local.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            try:
                connection.request("POST", "/twirp/livekit." + method, json.dumps(body), headers)
                return json.loads(connection.getresponse().read() or b"{}")
            except (OSError, http.client.HTTPException, ValueError) as error:
                connection.close()
                self.local.connection = None
                if last:
                    return {"code": "unreachable", "msg": str(error)}

    def create(self, room, mailbox, mode):
        metadata = json.dumps({"report": mailbox.path, "mode": mode})
        return self.call("AgentDispatchService/CreateDispatch", {"agent_name": "bench", "room": room, "metadata": metadata}, room)

    def delete(self, room, dispatch):
        self.call("AgentDispatchService/DeleteDispatch", {"dispatch_id": dispatch, "room": room}, room)

    def said(self, room):
        """What the server says of the room's job, in LiveKit's words."""
        answer = self.call("AgentDispatchService/ListDispatch", {"room": room}, room)
        if "code" in answer:
            return answer["code"]
        jobs = [job for one in answer.get("agent_dispatches", []) for job in one.get("state", {}).get("jobs", [])
                if job.get("agent_name") == "bench"]
        if not answer.get("agent_dispatches"):
            return "no dispatch"
        return jobs[-1]["state"].get("status", "JS_PENDING") if jobs else "a dispatch without a job"

    def livekit_worker(self, **env):
        settings = {"LIVEKIT_URL": f"ws://127.0.0.1:{self.port}", "LIVEKIT_API_KEY": KEY, "LIVEKIT_API_SECRET": SECRET, **env}
        return self.start_worker([PYTHON, HERE / "agent.py", "start"], settings, b"registered worker")

    def start_worker(self, command, env, registered):
        name = f"w{self.count}"
        self.count += 1
        worker = Worker(command, self.folder / f"{name}.log", env, name, registered)
        self.workers.append(worker)
        return worker

    def worker(self, **env):
        return self.livekit_worker(**env)

    def stuck_worker(self, where):
        """One that takes jobs and does no more: it never says whether it accepts, or it accepts and never starts."""
        return self.livekit_worker(STUCK=where, LOAD="none", **({"IDLE": "0"} if where == "start" else {})).wait_registered()

    def drop_workers(self):
        for worker in self.workers:
            worker.kill()
        self.workers.clear()


class LiveKit(Side):
    def __init__(self, folder):
        super().__init__(folder)
        self.port = free_port()
        self.redis_path = self.folder / "redis.sock"
        (self.folder / "livekit.yaml").write_text(json.dumps({
            "port": self.port, "bind_addresses": ["127.0.0.1"], "keys": {KEY: SECRET}, "redis": {"address": f"127.0.0.1:{self.redis_port()}"},
            "rtc": {"udp_port": free_port(socket.SOCK_DGRAM), "tcp_port": free_port(), "node_ip": "127.0.0.1", "use_external_ip": False,
                    "enable_loopback_candidate": True}}))
        self.redis = self.server = None
        self.restart_redis()
        self.restart_server()

    def redis_port(self):
        if not hasattr(self, "_redis_port"):
            self._redis_port = free_port()
        return self._redis_port

    def restart_redis(self):
        self.redis = subprocess.Popen(
            ["redis-server", "--port", str(self.redis_port()), "--bind", "127.0.0.1", "--dir", str(self.folder), "--appendonly", "yes",
             "--appendfsync", "everysec", "--save", "", "--daemonize", "no"], stdout=subprocess.DEVNULL)
        eventually(self.redis_answers, 10, "redis-server does not answer")

    def redis_answers(self):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.redis_port()), 1) as probe:
            probe.sendall(b"PING\r\n")
            return probe.recv(16).startswith(b"+PONG")

    def restart_server(self):
        log = open(self.folder / f"server-{time.monotonic_ns()}.log", "wb")
        self.server = subprocess.Popen([livekit_server(), "--config", str(self.folder / "livekit.yaml")], stdout=log, stderr=log, env=environment())
        eventually(lambda: "code" not in self.call("RoomService/ListRooms", {}), 20, "livekit-server does not answer")

    def kill_server(self):
        self.server.kill()
        self.server.wait()

    def kill_redis(self):
        self.redis.kill()
        self.redis.wait()

    def roots(self):
        return [self.server.pid, self.redis.pid] + [worker.process.pid for worker in self.workers]

    def close(self):
        super().close()
        self.kill_server()
        self.kill_redis()


class Parley(Side):
    SERVICES = "agent-registry,dispatch-broker,room-server,api-server"
    ARGUMENTS = ()

    def __init__(self, folder):
        super().__init__(folder)
        arguments = [argument for one in self.ARGUMENTS for argument in ("--argument", one)]
        self.log = open(self.folder / "cluster.log", "wb")
        self.cluster = subprocess.Popen([BIN / "parley-test-cluster", "--agent-servers", "0", "--services", self.SERVICES, *arguments],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, env=environment())
        self.where = json.loads(self.cluster.stdout.readline())
        self.port = int(self.where["api-server"].rsplit(":", 1)[1])

    def ask(self, line):
        self.cluster.stdin.write(line + "\n")
        self.cluster.stdin.flush()
        answer = self.cluster.stdout.readline().strip()
        if answer != "ok":
            raise RuntimeError(f"{line}: {answer}")

    def kill_server(self):
        for service in self.SERVICES.split(","):
            self.ask("kill " + service)

    def restart_server(self):
        for service in self.SERVICES.split(","):
            self.ask("restart " + service)

    def kill_redis(self):
        self.ask("kill redis")

    def restart_redis(self):
        self.ask("restart redis")

    def roots(self):
        # What starts the cluster is the test's, not Parley's.
        return [pid for pid in tree(self.cluster.pid) if pid != self.cluster.pid] + [worker.process.pid for worker in self.workers]

    def close(self):
        super().close()
        self.cluster.stdin.close()
        self.cluster.wait(30)
        self.cluster.stdout.close()
        self.log.close()


class ParleyOwn(Parley):
    SERVICES = "agent-registry,dispatch-broker,room-server,stt-gateway,tts-gateway,llm-gateway,api-server"

    def __init__(self, folder):
        script = pathlib.Path(folder) / "script.json"
        script.write_text("{}")
        self.ARGUMENTS = [f"{kind}-gateway:{part}" for kind in ("stt", "tts", "llm") for part in (f"--{kind}-script", str(script))]
        super().__init__(folder)

    def worker(self, **env):
        command = [BIN / "parley-bench-agent", "start", "--dev", "--health-port=0", "--slots=250",
                   *(["--load-threshold=1"] if env.get("LOAD") == "none" else []),
                   *(f"--{flag}-address={self.where[service]}" for flag, service in
                     (("dispatch", "dispatch-broker"), ("rooms", "room-server"), ("stt", "stt-gateway"), ("tts", "tts-gateway"),
                      ("llm", "llm-gateway")))]
        return self.start_worker(command, env, b'"msg":"registered"')

    def stuck_worker(self, where):
        worker = self.worker(LOAD="none").wait_registered()
        # The zygote makes processes of jobs; its first child, the agent server, answers the broker.
        pid = worker.process.pid if where == "start" else tree(worker.process.pid)[1]
        os.kill(pid, signal.SIGSTOP)
        return worker


MAKE = {"livekit": LiveKit, "parley_worker": Parley, "parley": ParleyOwn}


def livekit_server():
    if not hasattr(livekit_server, "path"):
        livekit_server.path = subprocess.run([SOURCE / "scripts/livekit-server"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    return livekit_server.path


@contextlib.contextmanager
def running(name):
    with tempfile.TemporaryDirectory(prefix="parley-") as folder:
        side = MAKE[name](folder)
        try:
            yield side, Mailbox(folder)
        except BaseException:
            for log in sorted(pathlib.Path(folder).glob("*.log")):
                say(f"--- {log.name}\n{log.read_text(errors='replace')[-1500:]}")
            raise
        finally:
            side.close()


# ---- the parts ----

def created(side, mailbox, report, name, quick):
    """One at a time, each on a worker with warm processes."""
    count, failed = 10 if quick else 100, 0
    side.worker(IDLE="4", LOAD="none").wait_registered()
    time.sleep(3 if quick else 8)  # its processes are warm
    took = []
    for i in range(count + 3):
        room = f"created-{i}"
        begin = time.monotonic()
        made = side.create(room, mailbox, "exit")
        try:
            ran = eventually(lambda: mailbox.of(room), 15, "did not run")[0]
        except TimeoutError:
            say(f"{name}: {room} did not run within 15 s: {made.get('id', made)}; the server says {side.said(room)}")
            failed += 1
            if failed == 3:
                break
            continue
        if i >= 3:  # the first ones warm everything else
            took.append((ran["at"] - begin) * 1000)
        time.sleep(0.3 if quick else 0.8)  # a process takes the place of the one that was used
    report.samples(name, "created_to_running_ms", "ms", took)
    side.drop_workers()


def burst(side, mailbox, report, name, quick):
    count, seconds = (20, 30) if quick else (200, 120)
    for load in ("none",) if quick else ("own", "none"):
        what = f"burst_of_{count}" + ("" if load == "none" else "_own_load")
        side.worker(LOAD=load).wait_registered()
        time.sleep(3 if quick else 8)
        begin = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            made = list(pool.map(lambda i: side.create(f"{what}-{i}", mailbox, "exit"), range(count)))
        refused = [one for one in made if "id" not in one]

        def ran():
            return [reports[0]["at"] for i in range(count) if (reports := mailbox.of(f"{what}-{i}"))]
        with contextlib.suppress(TimeoutError):
            eventually(lambda: len(ran()) == count, seconds, "not all ran")
        at = ran()
        doubled = sum(len(mailbox.of(f"{what}-{i}")) > 1 for i in range(count))
        note = f"{len(refused)} refused, {doubled} ran twice" + ("; with the load that workers report by themselves" if load == "own" else "")
        report.value(name, what + "_ran", "jobs", len(at), count, note)
        if at:
            report.value(name, what + "_s", "s", max(at) - begin, len(at), "to the last one that ran")
            report.value(name, what + "_per_second", "1/s", len(at) / (max(at) - begin), len(at))
        side.drop_workers()
        time.sleep(1)


def sessions(side, mailbox, report, name, quick):
    steps, settle, seconds = ((2,), 5, 8) if quick else ((1, 3, 5), 15, 40)
    side.worker(LOAD="none").wait_registered()
    time.sleep(3 if quick else 10)
    idle_kib = memory_kib(tree(*side.roots()))
    before, at = cpu_seconds(tree(*side.roots())), time.monotonic()
    time.sleep(seconds)
    idle_cpu = (cpu_seconds(tree(*side.roots())) - before) / (time.monotonic() - at)
    report.value(name, "idle_memory_mib", "MiB", idle_kib / 1024, 1, "all processes, before the first session")
    report.value(name, "idle_cpu_percent", "%", idle_cpu * 100, 1, "of one core")
    for count in steps:
        rooms = [f"talk-{count}-{i}" for i in range(count)]
        made = [side.create(room, mailbox, "talk") for room in rooms]
        for room in rooms:
            eventually(lambda: mailbox.of(room), 30, f"{room} has no agent; the server says {side.said(room)}")
        tokens = "\n".join(token(f"caller-{i}", roomJoin=True, room=room) for i, room in enumerate(rooms))
        length = settle + seconds + 5
        with subprocess.Popen([PYTHON, HERE / "caller.py", f"ws://127.0.0.1:{side.port}", str(length)], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment()) as callers:
            callers.stdin.write(tokens)
            callers.stdin.close()
            joined = callers.stdout.readline()
            if joined.strip() != "joined":
                raise RuntimeError(f"the callers did not join: {joined}")
            time.sleep(settle)
            pids = tree(*side.roots())
            before, at = cpu_seconds(pids), time.monotonic()
            time.sleep(seconds)
            cpu = (cpu_seconds(pids) - before) / (time.monotonic() - at)
            kib = memory_kib(tree(*side.roots()))
            heard = json.loads(callers.stdout.readline())["heard"]
        report.value(name, f"session_memory_kib_at_{count}", "KiB", (kib - idle_kib) / count, count, "each further session, all processes")
        report.value(name, f"session_cpu_percent_at_{count}", "%", (cpu - idle_cpu) * 100 / count, count, "each, of one core")
        share = min(sound / (0.4 * call) for sound, call in heard)
        report.value(name, f"session_heard_ratio_at_{count}", "1", share, count,
                     "sound of the agent at the caller that heard least, to what it said; above 1 is what decoders add where a tone ends")
        for room, one in zip(rooms, made):
            side.delete(room, one["id"])
        time.sleep(2 if quick else 6)
    side.drop_workers()


class Trouble:
    """One job in one kind of trouble: `cause` makes it and answers the room. What became of it is looked at for `seconds`."""

    def __init__(self, name, what, cause, seconds):
        self.name, self.what, self.cause, self.seconds = name, what, cause, seconds


def begun(side, mailbox, room, mode="wait"):
    made = side.create(room, mailbox, mode)
    if "id" not in made:
        raise RuntimeError(f"{room}: {made}")
    return eventually(lambda: mailbox.of(room), 30, f"{room} did not run; the server says {side.said(room)}")[0]


def no_worker(side, mailbox, room):
    side.create(room, mailbox, "wait")
    time.sleep(2)
    side.worker(LOAD="none").wait_registered()
    return None


def process_killed(side, mailbox, room):
    side.worker(LOAD="none").wait_registered()
    first = begun(side, mailbox, room)
    os.kill(first["pid"], signal.SIGKILL)
    return first


def worker_killed(side, mailbox, room):
    workers = [side.worker(LOAD="none").wait_registered() for _ in range(2)]
    first = begun(side, mailbox, room)
    next(worker for worker in workers if worker.name == first["worker"]).kill()
    return first


def raises(side, mailbox, room):
    side.worker(LOAD="none").wait_registered()
    return begun(side, mailbox, room, "raise")


def stuck(where):
    def cause(side, mailbox, room):
        side.stuck_worker(where)
        side.create(room, mailbox, "wait")
        time.sleep(1)
        side.worker(LOAD="none").wait_registered()
        return None
    return cause


def server_restarted(side, mailbox, room):
    side.worker(LOAD="none").wait_registered()
    first = begun(side, mailbox, room)
    side.kill_server()
    time.sleep(1)
    side.restart_server()
    return first


def redis_restarted(side, mailbox, room):
    side.worker(LOAD="none").wait_registered()
    first = begun(side, mailbox, room)
    side.kill_redis()
    time.sleep(3)
    side.restart_redis()
    return first


TROUBLES = (
    Trouble("no_worker_yet", "no worker serves the agent yet; one comes 2 s later", no_worker, 30),
    Trouble("process_killed", "the job's process is killed", process_killed, 30),
    Trouble("worker_killed", "the worker is killed with its jobs, beside a healthy one", worker_killed, 40),
    Trouble("job_raises", "the entrypoint raises an error", raises, 30),
    Trouble("never_starts", "the worker accepts and its process never begins; a healthy one comes", stuck("start"), 90),
    Trouble("never_accepted", "the worker never answers whether it takes the job; a healthy one comes", stuck("accept"), 40),
    Trouble("server_restarted", "the server (all services) is killed and comes back", server_restarted, 30),
    Trouble("redis_restarted", "Redis is killed and comes back after 3 s", redis_restarted, 30),
)
TRUE_ENDS = ("JS_FAILED", "JS_SUCCESS")


def became(side, mailbox, room, first, seconds):
    """(is that true and not lost?, in words). First looks 3 s at how things settle."""
    begin = time.monotonic()
    while True:
        time.sleep(0.25)
        reports = [one for one in mailbox.of(room) if first is None or one["at"] > first["at"]]
        said = side.said(room)
        lives = [one for one in ([first] if first else []) + reports if alive(one["pid"])]
        past = time.monotonic() - begin
        good = said in TRUE_ENDS and not lives or said == "JS_RUNNING" and len(lives) == 1
        if good and past > 3 or past > seconds:
            break
    ran = f"ran {len(reports)} time{'' if len(reports) == 1 else 's'}{' more' if first else ''}"
    if first and alive(first["pid"]):
        ran = "went on" + (f", and {ran}" if reports else "")
    return good, f"{ran}; the server says {said}" + (f" after {past:.0f} s" if good else f", {past:.0f} s later too")


def faults(side, mailbox, report, name, quick):
    chosen = ("no_worker_yet", "worker_killed", "job_raises") if quick else [one.name for one in TROUBLES]
    for trouble in TROUBLES:
        if trouble.name not in chosen:
            continue
        room = f"trouble-{trouble.name}"
        try:
            first = trouble.cause(side, mailbox, room)
            good, did = became(side, mailbox, room, first, min(trouble.seconds, 20) if quick else trouble.seconds)
        except (TimeoutError, RuntimeError) as error:
            good, did = False, str(error)[:300]
        say(f"{name}: {trouble.what}: {did}")
        report.value(name, "fault_" + trouble.name, "true", 1 if good else 0, 1, did)
        side.drop_workers()
        time.sleep(1)


# ---- the report, as every benchmark's ----

class Report:
    def __init__(self, quick):
        self.rows, self.quick = [], quick

    def samples(self, side, metric, unit, values):
        if not values:
            return self.value(side, metric, unit, math.nan, 0, "none ran")
        values = sorted(values)

        def rank(fraction):
            return values[max(1, math.ceil(fraction * len(values))) - 1]
        row = {"metric": metric, "side": side, "unit": unit, "n": len(values), "p50": rank(0.5), "p90": rank(0.9), "p99": rank(0.99),
               "max": values[-1]}
        self.rows.append(row)
        say(f"{side}: {metric} p50 {row['p50']:.1f} p99 {row['p99']:.1f} {unit}, n {len(values)}")

    def value(self, side, metric, unit, value, n, note=""):
        self.rows.append({"metric": metric, "side": side, "unit": unit, "n": n, "value": value, **({"note": note} if note else {})})
        if unit != "true":
            say(f"{side}: {metric} {value:.2f} {unit}" + (f" ({note})" if note else ""))

    def finish(self, path, versions, names):
        print("compare" + (" (quick: a smoke run, not a result)" if self.quick else ""))
        print(", ".join(f"{what} {version}" for what, version in versions.items()))
        for metric in dict.fromkeys(row["metric"] for row in self.rows if row["unit"] != "true"):
            for row in (one for one in self.rows if one["metric"] == metric):
                figures = (f"p50 {row['p50']:9.1f}  p99 {row['p99']:9.1f}  max {row['max']:9.1f}" if "p50" in row else f"    {row['value']:9.2f}")
                print(f"{metric:<32} {row['unit']:>5} {row['n']:>4}  {row['side']:<14} {figures}")
        for trouble in TROUBLES:
            for row in (one for one in self.rows if one["metric"] == "fault_" + trouble.name):
                print(f"{trouble.what:<80} {row['side']:<14} {'true' if row['value'] else 'LOST OR UNTRUE':<14} {row['note']}")
        if path:
            document = {"name": "compare", "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
                        "host": f"{platform.system()} {platform.release()}, {os.cpu_count()} cores", "versions": versions,
                        "sides": {name: SIDES[name] for name in names},
                        "results": [{**row, "metric": f"compare.{row['side']}.{row['metric']}",
                                     **({"value": None} if row.get("value") != row.get("value") else {})} for row in self.rows]}
            if self.quick:
                document["quick"] = True
            pathlib.Path(path).write_text(json.dumps(document, indent=2) + "\n")


def versions_of():
    def first(*command):
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().splitlines()[0]
    package = first(PYTHON, "-c", "import importlib.metadata as m; print(m.version('livekit-agents'), m.version('livekit'))").split()
    return {"livekit-server": first(livekit_server(), "--version").split()[-1], "livekit-agents": package[0], "livekit": package[1],
            "parley": first(BIN / "parley", "version").split()[-1] if (BIN / "parley").exists() else "?",
            "redis": first("redis-server", "--version").split("v=")[1].split()[0]}


def choice(known):
    def read(text):
        chosen = text.split(",")
        for one in chosen:
            if one not in known:
                raise argparse.ArgumentTypeError(f"there is no {one}; there are {', '.join(known)}")
        return chosen
    return read


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--sides", type=choice(SIDES), default=list(SIDES))
    parser.add_argument("--parts", type=choice(PARTS), default=list(PARTS))
    options = parser.parse_args()
    subprocess.run([SOURCE / "tests/livekit_workers/prepare.sh", BUILD, "python"], check=True)
    versions = versions_of()
    report = Report(options.quick)
    for name in options.sides:
        for part in options.parts:
            with running(name) as (side, mailbox):
                globals()[part](side, mailbox, report, name, options.quick)
    report.finish(options.json, versions, options.sides)


if __name__ == "__main__":
    main()
