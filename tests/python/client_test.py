"""A client that is not ours: the published grpcio package and code generated from the project's protos register an agent,
ask for it in a room, and watch it run and end."""
import base64
import hashlib
import hmac
import json
import os
import subprocess
import sys
import threading
import time
import unittest

BUILD = os.environ["PARLEY_BUILD_DIR"]
SOURCE = os.environ["PARLEY_SOURCE_DIR"]
sys.path.insert(0, os.path.join(BUILD, "python", "gen"))

import grpc  # noqa: E402
from parley.dispatch.v1 import dispatch_pb2, dispatch_pb2_grpc, types_pb2  # noqa: E402
from parley.registry.v1 import registry_pb2, registry_pb2_grpc  # noqa: E402

DEADLINE = 10


def token(key="devkey", secret="secret", life=3600, **grants):
    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    now = int(time.time())
    claims = {"iss": key, "sub": "python", "nbf": now - 1, "exp": now + life, **grants}
    body = part({"alg": "HS256", "typ": "JWT"}) + b"." + part(claims)
    signature = hmac.new(secret.encode(), body, hashlib.sha256).digest()
    return (body + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


ADMIN = [("authorization", "Bearer " + token(
    agent={"admin": True}, video={"roomCreate": True, "roomList": True}))]


class ClientTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = subprocess.Popen([os.path.join(BUILD, "bin", "parley-test-cluster")],
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        line = cls.cluster.stdout.readline()
        assert line, "the cluster did not start; see its message above"
        cls.where = json.loads(line)
        cls.registry = registry_pb2_grpc.AgentRegistryServiceStub(grpc.insecure_channel(cls.where["agent-registry"]))
        cls.dispatch = dispatch_pb2_grpc.DispatchServiceStub(grpc.insecure_channel(cls.where["dispatch-broker"]))

    @classmethod
    def tearDownClass(cls):
        cls.cluster.stdin.close()
        cls.cluster.wait(timeout=20)
        cls.cluster.stdout.close()

    @staticmethod
    def definition():
        with open(os.path.join(SOURCE, "examples", "front-desk.yaml"), encoding="utf-8") as file:
            return file.read()

    def register(self):
        request = registry_pb2.RegisterAgentRequest(definition=self.definition(), source_name="front-desk.yaml")
        return self.registry.RegisterAgent(request, metadata=ADMIN, timeout=DEADLINE)

    def test_registers_dispatches_and_watches(self):
        first = self.register()
        again = self.register()
        self.assertEqual(first.agent.id, "front-desk")
        self.assertFalse(again.created)
        self.assertEqual(again.agent.version, first.agent.version)

        watch = self.dispatch.WatchEvents(dispatch_pb2.WatchEventsRequest(after_position="0", room="python-room"),
                                          metadata=ADMIN)
        seen, changed = [], threading.Condition()

        def read():
            try:
                for answer in watch:
                    with changed:
                        seen.append(answer.event)
                        changed.notify_all()
            except grpc.RpcError:
                pass  # cancelled at the end

        reader = threading.Thread(target=read)
        reader.start()

        def wait_for(kind):
            with changed:
                ok = changed.wait_for(lambda: any(event.type == kind for event in seen), timeout=DEADLINE)
                self.assertTrue(ok, f"no {kind} among {[event.type for event in seen]}")

        created = self.dispatch.CreateDispatch(
            dispatch_pb2.CreateDispatchRequest(agent_name="front-desk", room="python-room"),
            metadata=ADMIN, timeout=DEADLINE).dispatch
        self.assertTrue(created.id.startswith("AD_"))
        wait_for("job_running")
        job = self.dispatch.GetDispatch(dispatch_pb2.GetDispatchRequest(dispatch_id=created.id),
                                        metadata=ADMIN, timeout=DEADLINE).dispatch.jobs[0]
        self.assertEqual(job.state, types_pb2.JOB_STATE_RUNNING)
        self.assertEqual(job.attempt, 1)
        self.dispatch.DeleteDispatch(dispatch_pb2.DeleteDispatchRequest(dispatch_id=created.id),
                                     metadata=ADMIN, timeout=DEADLINE)
        wait_for("job_cancelled")
        watch.cancel()
        reader.join(timeout=DEADLINE)
        order = [event.type for event in seen if event.dispatch_id == created.id]
        self.assertLess(order.index("dispatch_created"), order.index("job_running"))
        self.assertLess(order.index("job_running"), order.index("job_cancelled"))

    def test_unknown_agent_waits_and_fails_at_its_deadline(self):
        request = dispatch_pb2.CreateDispatchRequest(agent_name="nobody-serves-this", room="python-room-2")
        request.queue_deadline.FromMilliseconds(1000)
        created = self.dispatch.CreateDispatch(request, metadata=ADMIN, timeout=DEADLINE).dispatch
        until = time.monotonic() + DEADLINE
        while time.monotonic() < until:
            job = self.dispatch.GetDispatch(dispatch_pb2.GetDispatchRequest(dispatch_id=created.id),
                                            metadata=ADMIN, timeout=DEADLINE).dispatch.jobs[0]
            if job.state == types_pb2.JOB_STATE_FAILED:
                break
            time.sleep(0.05)
        self.assertEqual(job.state, types_pb2.JOB_STATE_FAILED)
        self.assertEqual(job.reason, types_pb2.JOB_REASON_NO_WORKER_BEFORE_DEADLINE)

    def test_refusals_have_codes(self):
        cases = {
            "unsigned": "x.y.",
            "foreign": token(key="APIother"),
            "wrong secret": token(secret="other"),
            "expired": token(life=-7200),
            "a participant": token(video={"roomJoin": True, "room": "r"}),
        }
        for what, bearer in cases.items():
            with self.subTest(what), self.assertRaises(grpc.RpcError) as caught:
                self.dispatch.CreateDispatch(
                    dispatch_pb2.CreateDispatchRequest(agent_name="front-desk", room="r"),
                    metadata=[("authorization", "Bearer " + bearer)], timeout=DEADLINE)
            self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAUTHENTICATED, what)
        with self.assertRaises(grpc.RpcError) as caught:
            self.registry.RegisterAgent(
                registry_pb2.RegisterAgentRequest(definition=self.definition() + "\nnonsense: 1\n", source_name="x.yaml"),
                metadata=ADMIN, timeout=DEADLINE)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
        self.assertRegex(caught.exception.details(), r"x\.yaml:\d+: nonsense")
        with self.assertRaises(grpc.RpcError) as caught:
            self.dispatch.CreateDispatch(
                dispatch_pb2.CreateDispatchRequest(agent_name="front-desk", room="r" * 257),
                metadata=ADMIN, timeout=DEADLINE)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)


if __name__ == "__main__":
    unittest.main(verbosity=2)
