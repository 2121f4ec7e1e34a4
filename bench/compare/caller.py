"""Callers for `scripts/bench compare`, on LiveKit's own package: each joins its room, speaks a second of every 2.5, and listens.

    caller.py URL SECONDS < tokens, one a line      prints "joined", then {"heard": [[seconds of the agent's sound, of the call], per caller]}
"""
import asyncio
import json
import math
import sys
import time

from livekit import rtc

RATE = 48000


async def call(url, token, seconds, heard, joined):
    """`heard`: seconds of sound, and of the call."""
    room = rtc.Room()
    tasks = []

    async def listen(track):
        async for event in rtc.AudioStream(track, sample_rate=16000, num_channels=1):
            samples = memoryview(event.frame.data).cast("B").cast("h")
            if max(samples, default=0) > 1000:
                heard[0] += event.frame.duration

    room.on("track_subscribed", lambda track, *_: tasks.append(asyncio.create_task(listen(track))))
    await room.connect(url, token)
    source = rtc.AudioSource(RATE, 1)
    await room.local_participant.publish_track(
        rtc.LocalAudioTrack.create_audio_track("caller", source),
        rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE))
    samples = RATE // 50
    tone = [int(8000 * math.sin(2 * math.pi * 300 * i / RATE)) for i in range(samples)]
    frame = rtc.AudioFrame(b"".join(s.to_bytes(2, "little", signed=True) for s in tone), RATE, 1, samples)
    joined()
    begun = time.monotonic()
    end = begun + seconds
    while time.monotonic() < end:
        begin = time.monotonic()
        for _ in range(50):
            await source.capture_frame(frame)
        await asyncio.sleep(max(0.0, begin + 2.5 - time.monotonic()))
    heard[1] = time.monotonic() - begun
    await room.disconnect()
    for task in tasks:
        task.cancel()


async def main(url, seconds):
    tokens = sys.stdin.read().split()
    heard = [[0.0, 0.0] for _ in tokens]
    left = [len(tokens)]

    def joined():
        left[0] -= 1
        if left[0] == 0:
            print("joined", flush=True)
    await asyncio.gather(*(call(url, token, float(seconds), one, joined) for token, one in zip(tokens, heard)))
    print(json.dumps({"heard": heard}), flush=True)


asyncio.run(main(*sys.argv[1:]))
