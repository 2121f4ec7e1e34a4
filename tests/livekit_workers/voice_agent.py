"""A voice agent on LiveKit's own package, as its users write one: the package's session, turn taking and room, unchanged, around models that
answer at once. The recogniser writes down the pitch of what it hears, the model adds up every pitch of the conversation, and the
voice sings the sum: who hears the right tone was understood, and remembered."""
import os
import re
import uuid
from array import array

from livekit import agents
from livekit.agents import llm, stt, tts
from tones import RATE, pitch, tone

LOUD = 1000  # of 16 bit samples
QUIET_SECONDS = 0.2  # that end what is said


class PitchRecogniser(stt.STT):
    def __init__(self):
        super().__init__(capabilities=stt.STTCapabilities(streaming=True, interim_results=False))

    async def _recognize_impl(self, buffer, *, language=None, conn_options=None):
        raise NotImplementedError

    def stream(self, *, language=None, conn_options=agents.DEFAULT_API_CONNECT_OPTIONS):
        return PitchStream(stt=self, conn_options=conn_options, sample_rate=RATE)


class PitchStream(stt.RecognizeStream):
    def tell(self, kind, text=None):
        said = [stt.SpeechData(language="en", text=text, confidence=1.0)] if text else []
        self._event_ch.send_nowait(stt.SpeechEvent(type=kind, alternatives=said))

    async def _run(self):
        said, quiet = array("h"), 0
        async for frame in self._input_ch:
            if isinstance(frame, self._FlushSentinel):
                continue
            samples = array("h", bytes(frame.data))
            if max(map(abs, samples), default=0) > LOUD:
                if not said:
                    self.tell(stt.SpeechEventType.START_OF_SPEECH)
                said.extend(samples)
                quiet = 0
            elif said:
                quiet += len(samples)
                if quiet >= QUIET_SECONDS * RATE:
                    self.tell(stt.SpeechEventType.FINAL_TRANSCRIPT, f"tone {pitch(said)}")
                    self.tell(stt.SpeechEventType.END_OF_SPEECH)
                    said, quiet = array("h"), 0


class Adder(llm.LLM):
    def chat(self, *, chat_ctx, tools=None, conn_options=agents.DEFAULT_API_CONNECT_OPTIONS, **_):
        return Sum(self, chat_ctx=chat_ctx, tools=tools or [], conn_options=conn_options)


class Sum(llm.LLMStream):
    async def _run(self):
        said = [item.text_content or "" for item in self._chat_ctx.items if item.type == "message" and item.role == "user"]
        total = sum(int(number) for text in said for number in re.findall(r"\d+", text))
        delta = llm.ChoiceDelta(role="assistant", content=f"That makes {total}.")
        self._event_ch.send_nowait(llm.ChatChunk(id=uuid.uuid4().hex, delta=delta))


class Singer(tts.TTS):
    def __init__(self):
        super().__init__(capabilities=tts.TTSCapabilities(streaming=False), sample_rate=RATE, num_channels=1)

    def synthesize(self, text, *, conn_options=agents.DEFAULT_API_CONNECT_OPTIONS):
        return Song(tts=self, input_text=text, conn_options=conn_options)


class Song(tts.ChunkedStream):
    async def _run(self, output_emitter):
        output_emitter.initialize(request_id=uuid.uuid4().hex, sample_rate=RATE, num_channels=1, mime_type="audio/pcm")
        for number in re.findall(r"\d+", self.input_text):
            output_emitter.push(tone(int(number), 0.8).tobytes())
        output_emitter.flush()


server = agents.AgentServer(
    host="127.0.0.1", port=0, num_idle_processes=1, load_fnc=lambda: 0.0, initialize_process_timeout=60)  # machines that run tests are busy


@server.rtc_session(agent_name=os.environ["AGENT"])
async def entrypoint(job: agents.JobContext):
    session = agents.AgentSession(
        stt=PitchRecogniser(), llm=Adder(), tts=Singer(), vad=None, aec_warmup_duration=None,
        turn_handling={"turn_detection": "stt", "endpointing": {"min_delay": 0.1, "max_delay": 0.5}})
    session.on("close", lambda _: job.shutdown())
    await session.start(agent=agents.Agent(instructions="Add up what you hear."), room=job.room)
    await session.say("Hello, 300.")


if __name__ == "__main__":
    agents.cli.run_app(server)
