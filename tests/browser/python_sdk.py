#!/usr/bin/env python3
"""The published Python SDK `livekit` in our room: talks to an agent, and to a second participant of its kind.

    python_sdk.py CLUSTER_URL WAV   prints what it saw as one line of JSON
"""
import asyncio
import json
import sys
import urllib.request
import wave

from livekit import rtc

SECONDS = 30


def details(url, identity, room, agent=None):
    body = {"participant_identity": identity, "room_name": room}
    if agent:
        body["room_config"] = {"agents": [{"agent_name": agent}]}
    request = urllib.request.Request(url + "/api/connection-details", json.dumps(body).encode(),
                                     {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


async def speak(source, path):
    """The file's words, then silence until cancelled."""
    with wave.open(path) as wav:
        rate, frames = wav.getframerate(), wav.readframes(wav.getnframes())
    samples = rate // 100
    size = 2 * samples
    pieces = [frames[at:at + size].ljust(size, b"\0") for at in range(0, len(frames), size)]
    while True:
        piece = pieces.pop(0) if pieces else b"\0" * size
        await source.capture_frame(rtc.AudioFrame(piece, rate, 1, samples))


class Talker:
    def __init__(self, name):
        self.name = name
        self.room = rtc.Room()
        self.heard = 0      # loud samples of others
        self.said = {}      # transcripts, by identity
        self.data = []
        self.listening = asyncio.Event()
        self.tasks = []
        self.room.on("track_subscribed", lambda track, *_: self.tasks.append(asyncio.create_task(self.listen(track))))
        self.room.on("data_received", lambda packet: self.data.append(
            [packet.participant.identity if packet.participant else "", packet.topic, packet.data.decode()]))
        self.room.on("participant_attributes_changed", lambda changed, who: (
            self.listening.set() if changed.get("lk.agent.state") == "listening" else None))
        self.texts, self.files = [], []
        self.room.register_text_stream_handler("chat", lambda reader, who: self.tasks.append(
            asyncio.create_task(self.read_chat(reader, who))))
        self.room.register_byte_stream_handler("files", lambda reader, who: self.tasks.append(
            asyncio.create_task(self.read_file(reader, who))))
        self.room.register_text_stream_handler("lk.transcription", lambda reader, who: self.tasks.append(
            asyncio.create_task(self.read(reader, who))))

    async def read(self, reader, who):
        self.said.setdefault(who, []).append(await reader.read_all())

    async def read_chat(self, reader, who):
        self.texts.append([who, len(await reader.read_all())])

    async def read_file(self, reader, who):
        size = 0
        async for part in reader:
            size += len(part)
        self.files.append([who, reader.info.name, size])

    async def listen(self, track):
        async for event in rtc.AudioStream(track, sample_rate=16000, num_channels=1):
            self.heard += sum(1 for s in memoryview(event.frame.data).cast("B").cast("h") if abs(s) > 1000)

    async def join(self, where):
        await self.room.connect(where["server_url"], where["participant_token"])


async def until(condition, what, talkers):
    for _ in range(SECONDS * 10):
        if condition():
            return
        await asyncio.sleep(0.1)
    raise SystemExit(f"{what} did not happen: " + json.dumps(
        {t.name: {"heard": t.heard, "said": t.said, "data": t.data} for t in talkers}))


async def streams_and_calls(ann, bob, both):
    me, other = ann.room.local_participant, bob.room.local_participant
    await me.send_text("a long story " * 3000, topic="chat")
    await until(lambda: ["ann", 39_000] in bob.texts, "the text", both)
    writer = await other.stream_bytes("cat.png", topic="files", mime_type="image/png")
    await writer.write(bytes(40_000))
    await writer.aclose()
    await until(lambda: ["bob", "cat.png", 40_000] in ann.files, "the file", both)

    async def add(call):
        return str(sum(json.loads(call.payload)))
    other.register_rpc_method("add", add)
    answer = await me.perform_rpc(destination_identity="bob", method="add", payload="[1, 2, 3]")
    if answer != "6":
        raise SystemExit(f"the call answered {answer}")
    for to, method, code in (("bob", "unknown", 1400), ("nobody", "add", 1401)):
        try:
            await me.perform_rpc(destination_identity=to, method=method, payload="")
            raise SystemExit(f"{to}.{method} did not fail")
        except rtc.RpcError as error:
            if error.code != code:
                raise SystemExit(f"{to}.{method} failed with {error.code}") from error


async def main(url, path):
    ann, bob = Talker("ann"), Talker("bob")
    await ann.join(details(url, "ann", "sdk-room", "front-desk"))
    await bob.join(details(url, "bob", "sdk-room"))
    both = (ann, bob)
    await asyncio.wait_for(ann.listening.wait(), SECONDS)
    await until(lambda: ann.said, "the greeting's text", both)
    await ann.room.local_participant.publish_data(b"hello bob", topic="greetings")
    await until(lambda: ["ann", "greetings", "hello bob"] in bob.data, "the packet", both)
    await streams_and_calls(ann, bob, both)
    with wave.open(path) as wav:
        source = rtc.AudioSource(wav.getframerate(), 1)
    track = rtc.LocalAudioTrack.create_audio_track("microphone", source)
    options = rtc.TrackPublishOptions()
    options.source = rtc.TrackSource.SOURCE_MICROPHONE
    await ann.room.local_participant.publish_track(track, options)
    speaking = asyncio.create_task(speak(source, path))
    heard_before = bob.heard
    answered = lambda talker: any("80 euros" in text for texts in talker.said.values() for text in texts)  # noqa: E731
    await until(lambda: answered(ann) and answered(bob), "the answer", both)
    await until(lambda: bob.heard > heard_before + 10_000, "the question at bob", both)
    speaking.cancel()
    print(json.dumps({t.name: {"heard": t.heard, "said": t.said, "data": t.data} for t in both}))
    for talker in both:
        await talker.room.disconnect()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
