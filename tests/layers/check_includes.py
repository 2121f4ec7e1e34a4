#!/usr/bin/env python3
"""Checks every #include of libs/, services/ and cli/ against the layers: includes point downwards only.

    check_includes.py ROOT        checks a checkout; exit 1 and one line per wrong include
    check_includes.py --self-test proves that each rule can fail

The table below is the one of docs/architecture.md. Libraries of one layer may include each other as long as no
circle results.
"""
import pathlib
import re
import sys
import tempfile

# Lowest first. A library may include what stands in its own layer or above it in this list.
LAYERS = [
    ["base"],
    ["event", "config", "log", "metrics", "audio", "trace"],
    ["redis", "rpc", "http", "ws", "auth"],
    ["autoscale", "job", "registry", "room", "session", "speech"],
    ["job_redis", "registry_redis", "room_redis", "speech_redis", "supervise", "tools", "engines", "webrtc", "signalling"],
    ["rehearsal", "service", "caller", "gateway"],
    ["agent"],
]
PURE = {"autoscale", "job", "registry", "room", "session", "speech"}
# `testing` is for tests and benchmarks; nothing that ships may include it.
TESTING = "testing"

# Third-party headers and the only folders that may see them (prefixes of the path in the checkout).
GUARDED = [
    (re.compile(r"^hiredis/"), "hiredis", ["libs/redis/"]),
    (re.compile(r"^libwebsockets\.h$|^lws"), "libwebsockets", ["libs/http/", "libs/ws/"]),
    (re.compile(r"^curl/"), "libcurl", ["libs/http/", "libs/ws/"]),
    (re.compile(r"^uv\.h$"), "libuv", ["libs/event/", "libs/http/"]),
    (re.compile(r"^srtp2/"), "libsrtp", ["libs/webrtc/"]),
    (re.compile(r"^usrsctp\.h$"), "usrsctp", ["libs/webrtc/"]),
    (re.compile(r"^nice/|^glib"), "libnice", ["libs/webrtc/"]),
]
GRPC = re.compile(r"^(grpc|grpcpp|google/protobuf)/")
GENERATED = re.compile(r"^parley/.*\.pb\.h$")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def rank_of(lib):
    for rank, names in enumerate(LAYERS):
        if lib in names:
            return rank
    return None


def includes_of(path):
    """(line number, header, is it ours) of each include of one file: what stands in angles is another library's."""
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        match = INCLUDE.match(line)
        if match:
            yield number, match.group(2), match.group(1) == '"'


def sources(root):
    for top in ("libs", "services", "cli"):
        for path in sorted((root / top).rglob("*")):
            if path.suffix in (".h", ".cc"):
                yield path


def check_third_party(where, lib, header):
    for pattern, name, allowed in GUARDED:
        if pattern.match(header) and not any(where.startswith(prefix) for prefix in allowed):
            return f"{name} may be included only in {' and '.join(allowed)}"
    if lib in PURE and (GRPC.match(header) or GENERATED.match(header)):
        return f"{lib} is pure domain: no gRPC and no protobuf; convert at the edge"
    return None


def check_layer(lib, target):
    """The complaint about libs/`lib` including libs/`target`, or None."""
    if target == TESTING:
        return "libs/testing is for tests and benchmarks only"
    if rank_of(target) > rank_of(lib):
        return f"{lib} stands below {target}: includes point downwards only"
    return None


def check_service(where, target, root):
    """Services never see each other; only the command line's `dev` links them all."""
    if where.startswith("cli/"):
        return None
    own = where.split("/")[1]
    if target != own and (root / "services" / target).is_dir():
        return f"services/{own} may not include another service's internals ({target})"
    return None


def find_circle(edges):
    """A list of libraries that include each other in a circle, or None."""
    state, path = {}, []

    def visit(lib):
        state[lib] = "open"
        path.append(lib)
        for target in sorted(edges.get(lib, ())):
            if state.get(target) == "open":
                return path[path.index(target):] + [target]
            if target not in state:
                circle = visit(target)
                if circle:
                    return circle
        path.pop()
        state[lib] = "done"
        return None

    for lib in sorted(edges):
        if lib not in state:
            circle = visit(lib)
            if circle:
                return circle
    return None


def check(root):
    complaints, edges = [], {}
    for path in sources(root):
        where = path.relative_to(root).as_posix()
        top, folder = where.split("/")[0], where.split("/")[1]
        lib = folder if top == "libs" else None
        if lib is not None and lib != TESTING and rank_of(lib) is None:
            complaints.append(f"{where}: libs/{lib} has no layer; add it to the table in tests/layers")
            continue
        for number, header, ours in includes_of(path):
            target = header.split("/")[0] if ours and "/" in header else None
            complaint = check_third_party(where, lib, header)
            if not complaint and target and (root / "libs" / target).is_dir():
                if lib is None:
                    complaint = check_layer("agent", target) if target == TESTING else None
                elif lib not in (target, TESTING):
                    known = target == TESTING or rank_of(target) is not None
                    complaint = check_layer(lib, target) if known else None
                    edges.setdefault(lib, set()).add(target)
            elif not complaint and target and top == "libs" and (root / "services" / target).is_dir():
                complaint = "libraries never include services"
            elif not complaint and target and top != "libs":
                complaint = check_service(where, target, root)
            if complaint:
                complaints.append(f"{where}:{number}: {header}: {complaint}")
    circle = find_circle(edges)
    if circle:
        complaints.append("libraries include each other in a circle: " + " -> ".join(circle))
    return complaints


SELF_TEST = [
    # (file, line, text that the complaint must contain, or None for "no complaint")
    ("libs/base/a.h", '#include "log/log.h"', "downwards only"),
    ("libs/log/a.h", '#include "base/status.h"', None),
    ("libs/log/a.h", '#include "metrics/metrics.h"', None),
    ("libs/job/a.cc", "#include <grpcpp/grpcpp.h>", "pure domain"),
    ("libs/session/a.cc", '#include "parley/job/v1/job.pb.h"', "pure domain"),
    ("libs/job/a.cc", "#include <hiredis/hiredis.h>", "hiredis may be included only"),
    ("libs/redis/a.cc", "#include <hiredis/hiredis.h>", None),
    ("services/agent_server/a.cc", "#include <curl/curl.h>", "libcurl may be included only"),
    ("libs/agent/a.cc", "#include <uv.h>", "libuv may be included only"),
    ("libs/tools/a.cc", "#  include <libwebsockets.h>", "libwebsockets may be included only"),
    ("libs/agent/a.h", '#include "testing/fake_clock.h"', "tests and benchmarks only"),
    ("services/agent_server/a.cc", '#include "testing/fake_clock.h"', "tests and benchmarks only"),
    ("libs/agent/a.h", '#include "agent_server/server.h"', "libraries never include services"),
    ("services/agent_server/a.cc", '#include "api_server/server.h"', "another service's internals"),
    ("cli/a.cc", '#include "api_server/server.h"', None),
    ("libs/audio/a.cc", "#include <webrtc/typedefs.h>", None),
    ("libs/audio/a.cc", '#include "webrtc/engine.h"', "downwards only"),
    ("services/room_server/a.cc", "#include <srtp2/srtp.h>", "libsrtp may be included only"),
    ("libs/room/a.cc", "#include <usrsctp.h>", "usrsctp may be included only"),
    ("libs/newcomer/a.h", '#include "base/status.h"', "has no layer"),
]


def self_test():
    failures = []
    folders = [name for layer in LAYERS for name in layer] + [TESTING]

    def complaints_about(files):
        with tempfile.TemporaryDirectory() as name:
            root = pathlib.Path(name)
            for folder in folders:
                (root / "libs" / folder).mkdir(parents=True)
            for service in ("agent_server", "api_server"):
                (root / "services" / service).mkdir(parents=True)
            (root / "cli").mkdir()
            for where, text in files:
                (root / where).parent.mkdir(parents=True, exist_ok=True)
                (root / where).write_text(text + "\n")
            return check(root)

    for where, line, expected in SELF_TEST:
        got = complaints_about([(where, line)])
        good = not got if expected is None else len(got) == 1 and expected in got[0]
        if not good:
            failures.append(f"{where}: {line}: expected {expected!r}, got {got}")
    circle = complaints_about([("libs/log/a.h", '#include "metrics/a.h"'),
                               ("libs/metrics/a.h", '#include "log/a.h"')])
    if not any("circle" in text for text in circle):
        failures.append(f"a circle went unseen: {circle}")
    print("\n".join(failures) or f"{len(SELF_TEST) + 1} cases behave")
    return 1 if failures else 0


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    complaints = check(pathlib.Path(sys.argv[1]))
    print("\n".join(complaints) or "every include points downwards")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
