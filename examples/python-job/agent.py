#!/usr/bin/env python3
"""A job in Python: joins its room, writes to everybody in it, leaves when told to.

It speaks parley.job.v1 on descriptor 3 (protos/parley/job/v1/job.proto): each message is its length
in four bytes, little-endian, and then the message. `generate.sh` makes the classes used here.
"""
import os
import signal
import socket
import struct
import sys
import time

sys.path.insert(0, os.environ.get("PARLEY_GENERATED", os.path.join(os.path.dirname(__file__), "generated")))

from parley.dispatch.v1 import types_pb2  # noqa: E402
from parley.job.v1 import job_pb2  # noqa: E402
from parley.room.v1 import room_pb2  # noqa: E402

PROTOCOL = 1


class Channel:
    def __init__(self):
        self.socket = socket.socket(fileno=3)
        self.seq = 0

    def send(self, **message):
        self.seq += 1
        data = job_pb2.FromJob(seq=self.seq, **message).SerializeToString()
        self.socket.sendall(struct.pack("<I", len(data)) + data)

    def receive(self):
        """The next message that is not about whether we are alive; None when the server has gone."""
        while True:
            head = self.read(4)
            if head is None:
                return None
            message = job_pb2.ToJob.FromString(self.read(struct.unpack("<I", head)[0]))
            if not message.HasField("ping"):
                return message
            self.send(pong=job_pb2.Pong(id=message.ping.id))

    def read(self, size):
        data = b""
        while len(data) < size:
            piece = self.socket.recv(size - len(data))
            if not piece:
                return None
            data += piece
        return data


def serve(channel, assignment):
    """One job, to the reason of its end."""
    channel.send(join=job_pb2.Join())
    while True:
        message = channel.receive()
        if message is None:
            sys.exit(1)
        if message.HasField("joined"):
            print(f"in room {assignment.job.room} with {len(message.joined.others)} others", flush=True)
            hello = room_pb2.DataPacket(topic="lk.chat", payload=b"Hello from Python", reliable=True)
            channel.send(room_command=room_pb2.ParticipantCommand(data=hello))
        elif message.HasField("join_failed"):
            return types_pb2.JOB_REASON_ENTRYPOINT_ERROR, message.join_failed.message
        elif message.HasField("room_event") and message.room_event.HasField("disconnected"):
            return types_pb2.JOB_REASON_ROOM_CLOSED, ""
        elif message.HasField("shutdown"):
            stopped = message.shutdown.why == job_pb2.Shutdown.TERMINATED
            return (types_pb2.JOB_REASON_TERMINATED if stopped else types_pb2.JOB_REASON_SHUTDOWN), ""


def main():
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the agent server says when it is over
    channel = Channel()
    channel.send(hello=job_pb2.Hello(protocol=PROTOCOL, pid=os.getpid(), warm=True))
    message = channel.receive()  # waits here, started ahead of its job
    if message is None or not message.HasField("assignment"):
        return 1
    channel.send(entered=job_pb2.Entered(entered_us=time.monotonic_ns() // 1000))
    reason, error = serve(channel, message.assignment)
    channel.send(ended=job_pb2.Ended(reason=reason, error=error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
