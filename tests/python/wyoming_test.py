"""The engine `wyoming` against servers written with the published package `wyoming`: what is heard arrives there sample for
sample, what they say arrives here at any rate, and what they do wrong is met by the next engine."""
import asyncio
import json
import math
import os
import struct
import subprocess
import sys
import threading
import time
import unittest

BUILD = os.environ["PARLEY_BUILD_DIR"]
sys.path.insert(0, os.path.join(BUILD, "python", "gen"))

import grpc  # noqa: E402
from client_test import token  # noqa: E402
from parley.speech.v1 import speech_pb2, speech_pb2_grpc  # noqa: E402
from wyoming.asr import Transcribe, Transcript  # noqa: E402
from wyoming.audio import AudioChunk, AudioStart, AudioStop  # noqa: E402
from wyoming.error import Error  # noqa: E402
from wyoming.server import AsyncEventHandler  # noqa: E402
from wyoming.tts import Synthesize  # noqa: E402

CALLER = [("authorization", "Bearer " + token(video={"agent": True}))]


def tone(seconds, rate):
    return b"".join(struct.pack("<h", int(9000 * math.sin(2 * math.pi * 440 * i / rate))) for i in range(int(seconds * rate)))


class Handler(AsyncEventHandler):
    """Hears: says how much it heard. Speaks: a tone of 0.1 s a letter, at 22,050 Hz. Words in the text ask for faults."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.heard = b""
        self.language = None

    async def handle_event(self, event):
        if Transcribe.is_type(event.type):
            self.language = Transcribe.from_event(event).language
        elif AudioChunk.is_type(event.type):
            chunk = AudioChunk.from_event(event)
            assert (chunk.rate, chunk.width, chunk.channels) == (16000, 2, 1)
            self.heard += chunk.audio
        elif AudioStop.is_type(event.type):
            await self.write_event(Transcript(text=f" {len(self.heard) // 2} samples in {self.language}\n").event())
            return False
        elif Synthesize.is_type(event.type):
            return await self.speak(Synthesize.from_event(event))
        return True

    async def speak(self, wish):
        if "refuse" in wish.text:
            await self.write_event(Error(text="I do not say that").event())
            return False
        if "silent" in wish.text:
            await asyncio.sleep(20)
            return False
        rate = 22050
        await self.write_event(AudioStart(rate=rate, width=2, channels=1).event())
        audio = tone(0.1 * len(wish.text), rate)
        for at in range(0, len(audio), 4096):
            if "break" in wish.text and at > len(audio) // 2:
                return False
            await self.write_event(AudioChunk(rate=rate, width=2, channels=1, audio=audio[at:at + 4096]).event())
        await self.write_event(AudioStop().event())
        return False


class Server:
    def __init__(self):
        self.port = None
        started = threading.Event()

        def run():
            asyncio.run(self.serve(started))

        threading.Thread(target=run, daemon=True).start()
        assert started.wait(10)

    async def serve(self, started):
        server = await asyncio.start_server(self.connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        async with server:
            await server.serve_forever()

    @staticmethod
    async def connected(reader, writer):
        await Handler(reader, writer).run()


class Gateway:
    def __init__(self, name, *flags):
        self.process = subprocess.Popen(
            [os.path.join(BUILD, "bin", name), "--dev", "true", "--grpc-port", "0", "--admin-port", "0", *flags],
            stderr=subprocess.PIPE, text=True)
        while True:
            line = self.process.stderr.readline()
            assert line, f"{name} did not start"
            if '"msg":"serving"' in line:
                break
        self.channel = grpc.insecure_channel(f"127.0.0.1:{json.loads(line)['grpc_port']}")
        self.reader = threading.Thread(target=self.process.stderr.read, daemon=True)
        self.reader.start()

    def stop(self):
        self.channel.close()
        self.process.terminate()
        self.process.wait(20)
        self.reader.join(5)
        self.process.stderr.close()


class WyomingTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server()
        cls.address = f"127.0.0.1:{cls.server.port}"

    def gateway(self, *arguments):
        gateway = Gateway(*arguments)  # of each test its own: breakers remember
        self.addCleanup(gateway.stop)
        return gateway

    def setUp(self):
        self.tts = self.gateway("parley-tts-gateway", "--tts-wyoming-address", self.address)

    def say(self, text, *engines):
        requests = [
            speech_pb2.SynthesizeRequest(config=speech_pb2.SynthesizeConfig(
                voices=[speech_pb2.VoiceConfig(engine=engine) for engine in engines], sample_rate_hz=16000)),
            speech_pb2.SynthesizeRequest(text=text)]
        stub = speech_pb2_grpc.TextToSpeechServiceStub(self.tts.channel)
        audio, engine = b"", None
        for answer in stub.Synthesize(iter(requests), metadata=CALLER, timeout=30):
            audio += answer.audio.data
            engine = answer.done.engine or engine
        return len(audio) / 2 / 16000, engine

    def test_speaks_at_the_rate_that_is_asked_for(self):
        seconds, engine = self.say("Good day.", "wyoming")
        self.assertEqual(engine, "wyoming")
        self.assertAlmostEqual(seconds, 0.9, delta=0.01)

    def test_what_goes_wrong_is_said_by_the_next_voice(self):
        for text in ("Please refuse this.", "Please break in the middle of this."):
            _, engine = self.say(text, "wyoming", "flite")
            self.assertEqual(engine, "flite", text)
        began = time.monotonic()
        _, engine = self.say("Be silent now.", "wyoming", "flite")
        self.assertEqual(engine, "flite")
        self.assertLess(time.monotonic() - began, 5)

    def test_an_error_names_what_the_server_said(self):
        with self.assertRaises(grpc.RpcError) as caught:
            self.say("Please refuse this.", "wyoming")
        self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAVAILABLE)

    def test_hears_each_utterance_whole(self):
        requests = [speech_pb2.RecognizeRequest(config=speech_pb2.RecognizeConfig(
            engines=[speech_pb2.EngineConfig(engine="wyoming", language="en-US")], sample_rate_hz=16000))]
        for number, seconds in ((1, 0.5), (2, 0.25)):
            requests.append(speech_pb2.RecognizeRequest(audio=tone(seconds, 16000)))
            requests.append(speech_pb2.RecognizeRequest(end_utterance=speech_pb2.EndUtterance(utterance=number)))
        stt = self.gateway("parley-stt-gateway", "--stt-preload", "false", "--stt-wyoming-address", self.address)
        stub = speech_pb2_grpc.SpeechToTextServiceStub(stt.channel)
        finals = [(answer.final.utterance, answer.final.text)
                  for answer in stub.Recognize(iter(requests), metadata=CALLER, timeout=30) if answer.HasField("final")]
        self.assertEqual(finals, [(1, "8000 samples in en"), (2, "4000 samples in en")])


if __name__ == "__main__":
    unittest.main()
