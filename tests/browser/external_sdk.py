#!/usr/bin/env python3
"""The published Python SDK `livekit` in a room of a LiveKit server, where an agent of ours takes the job.

    external_sdk.py LIVEKIT_URL TOKEN WAV   prints what it saw as one line of JSON
"""
import asyncio
import json
import sys
import wave

from livekit import rtc
from python_sdk import SECONDS, Talker, speak, until


async def main(url, token, path):
    ann = Talker("ann")
    gone = asyncio.Event()
    ann.room.on("participant_disconnected", lambda _: gone.set())
    await ann.room.connect(url, token)
    await asyncio.wait_for(ann.listening.wait(), SECONDS)
    agent = next(iter(ann.room.remote_participants.values()))
    await until(lambda: ann.said.get(agent.identity), "the greeting's text", [ann])
    await until(lambda: ann.heard > 5_000, "the greeting's sound", [ann])
    with wave.open(path) as wav:
        source = rtc.AudioSource(wav.getframerate(), 1)
    track = rtc.LocalAudioTrack.create_audio_track("microphone", source)
    options = rtc.TrackPublishOptions()
    options.source = rtc.TrackSource.SOURCE_MICROPHONE
    await ann.room.local_participant.publish_track(track, options)
    speaking = asyncio.create_task(speak(source, path))
    await until(lambda: any("80 euros" in text for text in ann.said[agent.identity]), "the answer", [ann])
    speaking.cancel()
    # In writing, too.
    await ann.room.local_participant.send_text("what does a suite cost", topic="lk.chat")
    await until(lambda: any("250 euros" in text for text in ann.said[agent.identity]), "the written answer", [ann])
    print(json.dumps({"agent": [agent.identity, agent.kind, dict(agent.attributes)], "heard": ann.heard, "said": ann.said}))
    await ann.room.disconnect()


asyncio.run(main(*sys.argv[1:]))
