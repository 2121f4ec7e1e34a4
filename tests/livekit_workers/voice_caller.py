"""Somebody with the published Python SDK who joins with the agent and sings to it: voice_caller.py URL TOKEN. Prints what came of it."""
import asyncio
import json
import sys
from array import array

from livekit import rtc
from tones import RATE, pitch, tone

SECONDS = 40
FRAME = RATE // 100
WINDOW = RATE // 10


class Caller:
    def __init__(self):
        self.room = rtc.Room()
        self.heard = []   # the pitch of each tenth of a second that was no silence
        self.texts = []   # (who, what)
        self.states = []  # the agent's
        self.tasks = []
        self.to_say = array("h")
        self.room.on("track_subscribed", lambda track, *_: self.tasks.append(asyncio.create_task(self.listen(track))))
        self.room.on("participant_attributes_changed", lambda changed, _: (
            self.states.append(changed["lk.agent.state"]) if "lk.agent.state" in changed else None))
        self.room.register_text_stream_handler("lk.transcription", lambda reader, who: self.tasks.append(
            asyncio.create_task(self.read(reader, who))))

    async def read(self, reader, who):
        self.texts.append((who, await reader.read_all()))

    async def listen(self, track):
        window = array("h")
        async for event in rtc.AudioStream(track, sample_rate=RATE, num_channels=1):
            window.extend(array("h", bytes(event.frame.data)))
            while len(window) >= WINDOW:
                piece, window = window[:WINDOW], window[WINDOW:]
                if max(map(abs, piece)) > 2000:
                    self.heard.append(pitch(piece))

    async def speak(self, source):
        while True:
            piece, self.to_say = self.to_say[:FRAME], self.to_say[FRAME:]
            piece.extend([0] * (FRAME - len(piece)))
            await source.capture_frame(rtc.AudioFrame(piece.tobytes(), RATE, 1, FRAME))

    async def until(self, condition, what):
        for _ in range(SECONDS * 20):
            if condition():
                return
            await asyncio.sleep(0.05)
        raise SystemExit(f"{what} did not come: {self.told()}")

    async def hears(self, hertz, since=None):
        """Half a second of that pitch, from now on."""
        before = len(self.heard) if since is None else since
        await self.until(lambda: self.heard[before:].count(hertz) >= 5, f"a tone of {hertz} Hz")

    def told(self):
        return json.dumps({"heard": self.heard, "texts": self.texts, "states": self.states})


async def main(url, token):
    caller = Caller()
    await caller.room.connect(url, token)
    source = rtc.AudioSource(RATE, 1, queue_size_ms=100)
    track = rtc.LocalAudioTrack.create_audio_track("microphone", source)
    options = rtc.TrackPublishOptions()
    options.source = rtc.TrackSource.SOURCE_MICROPHONE
    options.dtx = False
    await caller.room.local_participant.publish_track(track, options)
    speaking = asyncio.create_task(caller.speak(source))
    await caller.hears(300, 0)  # the greeting, which may have begun before our own track was published
    await caller.until(lambda: caller.states[-1:] == ["listening"], "the end of the greeting")
    for question, answer in ((500, 500), (700, 1200)):
        caller.to_say = tone(question, 0.6)
        await caller.hears(answer)
        await caller.until(lambda: caller.states[-1:] == ["listening"], "the end of the answer")
    await caller.until(lambda: any("1200" in text for _, text in caller.texts), "the last text")
    speaking.cancel()
    agent = next(iter(caller.room.remote_participants.values()))
    print(json.dumps({**json.loads(caller.told()), "agent": agent.identity, "kind": agent.kind}))
    await caller.room.disconnect()


asyncio.run(main(*sys.argv[1:]))
