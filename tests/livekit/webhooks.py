#!/usr/bin/env python3
"""webhooks.py FILE: takes each {"authorization", "body"} line as LiveKit's WebhookReceiver does."""
import json
import sys

from livekit.api import TokenVerifier, WebhookReceiver

receiver = WebhookReceiver(TokenVerifier("devkey", "secret"))
events = []
with open(sys.argv[1], encoding="utf-8") as lines:
    for line in lines:
        hook = json.loads(line)
        event = receiver.receive(hook["body"], hook["authorization"])
        events.append(event.event)
        assert event.id.startswith("EV_") and event.created_at > 1_700_000_000, event
        assert event.room.name == "lobby", event
        try:
            receiver.receive(hook["body"].replace("lobby", "lobbx"), hook["authorization"])
        except Exception as error:
            assert "hash" in str(error).lower(), error
        else:
            raise AssertionError("a changed body was taken")
assert events[-3:] == ["dispatch_created", "agent_job_ended", "dispatch_ended"], events
print(f"{len(events)} webhooks taken, as many changed ones refused")
