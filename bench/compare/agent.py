"""The agent of `scripts/bench compare` on LiveKit's own package: the same file on LiveKit's server and on Parley. What its job does
stands in the metadata; what it did it tells in datagrams "<job id> <its clock, us> <pid> <what> <room> <worker>", as
parley-bench-agent does.

    {"report": "/path/of/socket", "mode": "exit" | "wait" | "raise" | "talk"}
"""
import asyncio
import json
import math
import os
import socket
import time

from livekit import agents, rtc

RATE = 24000
TALK = 0.4       # of the time
PERIOD = 2.5     # s


def tell(path, job, what):
    now = time.monotonic_ns() // 1000
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        text = f"{job.id} {now} {os.getpid()} {what} {job.room.name} {os.environ.get('WORKER', '-')}"
        out.sendto(text.encode(), path)


def wish_of(job):
    return json.loads(job.metadata or "{}")


async def on_request(request: agents.JobRequest):
    if os.environ.get("STUCK") == "accept":
        tell(wish_of(request.job)["report"], request.job, "asked")
        await asyncio.sleep(3600)
    await request.accept()
    if os.environ.get("STUCK") == "start":
        tell(wish_of(request.job)["report"], request.job, "asked")


def prewarm(process):
    if os.environ.get("STUCK") == "start":
        time.sleep(3600)


async def hear(track, heard):
    async for event in rtc.AudioStream(track, sample_rate=RATE, num_channels=1):
        heard[0] += event.frame.samples_per_channel


async def talk(job):
    """Hears the caller, and says a second of a tone every 2.5 s."""
    heard, tasks = [0], []
    job.room.on("track_subscribed", lambda track, *_: tasks.append(asyncio.create_task(hear(track, heard))))
    await job.connect()
    source = rtc.AudioSource(RATE, 1)
    await job.room.local_participant.publish_track(
        rtc.LocalAudioTrack.create_audio_track("agent", source),
        rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE))
    samples = RATE // 100
    tone = [int(8000 * math.sin(2 * math.pi * 440 * i / RATE)) for i in range(samples)]
    frame = rtc.AudioFrame(b"".join(s.to_bytes(2, "little", signed=True) for s in tone), RATE, 1, samples)
    while True:
        begin = time.monotonic()
        for _ in range(int(TALK * PERIOD * 100)):
            await source.capture_frame(frame)
        await asyncio.sleep(max(0.0, begin + PERIOD - time.monotonic()))


# As its users run it, but for what a busy machine needs: nobody's job shall fail because a process took long to begin.
options = {"initialize_process_timeout": 60, "host": "127.0.0.1", "port": 0, "drain_timeout": 5, "setup_fnc": prewarm}
if "IDLE" in os.environ:
    options["num_idle_processes"] = int(os.environ["IDLE"])
if os.environ.get("LOAD") == "none":
    options["load_fnc"] = lambda: 0.0
server = agents.AgentServer(**options)


@server.rtc_session(agent_name="bench", on_request=on_request)
async def entrypoint(job: agents.JobContext):
    wish = wish_of(job.job)
    tell(wish["report"], job.job, "ran")
    if wish["mode"] == "exit":
        job.shutdown()
    if wish["mode"] == "raise":
        raise RuntimeError("as asked")
    if wish["mode"] == "talk":
        await talk(job)


if __name__ == "__main__":
    agents.cli.run_app(server)
