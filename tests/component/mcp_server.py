#!/usr/bin/env python3
"""An MCP server of the tests, as the specification of 2025-06-18 has it, with the standard library alone.

    mcp_server.py stdio
    mcp_server.py http [json|events]   prints its port; answers as JSON, or as a stream of events

It checks what clients send, and says with status 400 or an error where that is wrong. Tools: add (numbers a, b), slow
(answers after 30 s, or never once cancelled), fail, env (a variable's value), exit (the process ends), given_up (how many calls were cancelled), "not a name!".
"""
import http.server
import json
import os
import sys
import threading

TOOLS = [
    {"name": "add", "description": "Adds two numbers",
     "inputSchema": {"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}}, "required": ["a", "b"]}},
    {"name": "slow", "inputSchema": {"type": "object"}},
    {"name": "fail", "description": "Always fails", "inputSchema": {"type": "object"}},
    {"name": "env", "inputSchema": {"type": "object", "properties": {"name": {"type": "string"}}}},
    {"name": "not a name!", "inputSchema": {"type": "object"}},
    {"name": "exit", "inputSchema": {"type": "object"}},
    {"name": "given_up", "description": "How many calls were cancelled", "inputSchema": {"type": "object"}},
]
cancelled = {}
lock = threading.Lock()


def event_of(number):
    with lock:
        return cancelled.setdefault(number, threading.Event())


def text(value, error=False):
    return {"content": [{"type": "text", "text": value}], "isError": error}


def call(name, arguments, number):
    if name == "add":
        return text(str(arguments["a"] + arguments["b"]))
    if name == "slow":
        return None if event_of(number).wait(30) else text("at last")
    if name == "fail":
        return text("no room is free", True)
    if name == "env":
        return text(os.environ.get(arguments["name"], "unset"))
    if name == "exit":
        os._exit(0)
    if name == "given_up":
        return text(str(sum(one.is_set() for one in list(cancelled.values()))))
    raise ValueError("unknown tool " + name)


def answer(message):
    """The answer to one message; None where there is none."""
    assert message["jsonrpc"] == "2.0", "jsonrpc"
    method, params, number = message["method"], message.get("params", {}), message.get("id")
    if method == "notifications/cancelled":
        event_of(params["requestId"]).set()
        return None
    if method == "notifications/initialized":
        return None
    if method == "initialize":
        assert params["protocolVersion"] == "2025-06-18" and params["clientInfo"]["name"], "initialize"
        result = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "t", "version": "1"}}
    elif method == "tools/list":  # in two pages
        first = "cursor" not in params
        assert first or params["cursor"] == "2", "cursor"
        result = {"tools": TOOLS[:2], "nextCursor": "2"} if first else {"tools": TOOLS[2:]}
    elif method == "tools/call":
        try:
            result = call(params["name"], params["arguments"], number)
        except (ValueError, KeyError) as error:
            return {"jsonrpc": "2.0", "id": number, "error": {"code": -32602, "message": str(error)}}
        if result is None:
            return None
    else:
        return {"jsonrpc": "2.0", "id": number, "error": {"code": -32601, "message": "no " + method}}
    return {"jsonrpc": "2.0", "id": number, "result": result}


def stdio():
    out = threading.Lock()

    def say(message):
        with out:
            sys.stdout.write(json.dumps(message) + "\n")
            sys.stdout.flush()

    def serve(message):
        if (reply := answer(message)) is not None:
            say(reply)

    print("not JSON at all", flush=True)  # clients read over it
    say({"jsonrpc": "2.0", "id": "ours", "method": "ping"})
    for line in sys.stdin:
        message = json.loads(line)
        if "method" not in message:
            assert message == {"jsonrpc": "2.0", "id": "ours", "result": {}}, message
            continue
        threading.Thread(target=serve, args=(message,), daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    sessions = set()
    events = False

    def log_message(self, *_):
        pass

    def reply(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        message = json.loads(body)
        wanted = {"application/json", "text/event-stream"}
        if wanted - {one.strip() for one in self.headers["Accept"].split(",")}:
            return self.reply(400)
        if self.headers.get("X-Key") not in (None, "secret"):
            return self.reply(403)
        headers = {}
        if message["method"] == "initialize":
            session = f"s{len(self.sessions)}-{os.getpid()}"
            self.sessions.add(session)
            headers["Mcp_Session_Id"] = session
        elif self.headers.get("Mcp-Session-Id") not in self.sessions:
            return self.reply(404)
        elif self.headers.get("MCP-Protocol-Version") != "2025-06-18":
            return self.reply(400)
        if message["method"] == "tools/call" and message["params"]["name"] == "exit":
            self.sessions.clear()  # it forgets everybody
            return self.reply(404)
        result = answer(message)
        if result is None:
            return self.reply(202)
        data = json.dumps(result)
        if not self.events:
            return self.reply(200, data.encode(), Content_Type="application/json", **headers)
        note = json.dumps({"jsonrpc": "2.0", "method": "notifications/progress", "params": {}})
        stream = f": hello\n\nevent: message\ndata: {note}\n\nevent: message\nid: 7\ndata: {data}\n\n"
        return self.reply(200, stream.encode(), Content_Type="text/event-stream", **headers)

    def do_DELETE(self):
        self.sessions.discard(self.headers.get("Mcp-Session-Id"))
        self.reply(200)


def main():
    if sys.argv[1] == "stdio":
        return stdio()
    Handler.events = sys.argv[2:] == ["events"]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print("port", server.server_port, flush=True)
    return server.serve_forever()


if __name__ == "__main__":
    main()
