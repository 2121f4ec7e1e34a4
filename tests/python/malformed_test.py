"""Malformed audio and requests: each has a clear error, or does no harm; after each the gateway serves on, as the same process."""
import json
import math
import os
import struct
import sys
import threading
import unittest

BUILD = os.environ["PARLEY_BUILD_DIR"]
sys.path.insert(0, os.path.join(BUILD, "python", "gen"))

import grpc  # noqa: E402
from parley.llm.v1 import llm_pb2 as llm  # noqa: E402
from parley.llm.v1 import llm_pb2_grpc  # noqa: E402
from parley.riva.v1 import asr_pb2 as asr  # noqa: E402
from parley.riva.v1 import asr_pb2_grpc, tts_pb2_grpc  # noqa: E402
from parley.riva.v1 import tts_pb2 as tts  # noqa: E402
from parley.speech.v1 import speech_pb2 as speech  # noqa: E402
from parley.speech.v1 import speech_pb2_grpc  # noqa: E402
from wyoming_test import CALLER, Gateway, tone  # noqa: E402

INVALID, EXHAUSTED, NOT_FOUND = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED,
                                 grpc.StatusCode.NOT_FOUND)
UNPARSED = grpc.StatusCode.INTERNAL  # gRPC's own word for bytes that are no message
OK = grpc.StatusCode.OK
GRAMMAR = "#JSGF V1.0; grammar g; public <u> = yes | no;"


def hear(*messages, rate=16000, engines=("pocketsphinx",), grammar=GRAMMAR, encoding=0, config=True):
    head = speech.RecognizeConfig(
        engines=[speech.EngineConfig(engine=engine, grammar=grammar) for engine in engines], sample_rate_hz=rate, encoding=encoding)
    return ([speech.RecognizeRequest(config=head)] if config else []) + list(messages)


def audio(data):
    return speech.RecognizeRequest(audio=data)


def say(*messages, config=True, rate_hz=16000, **voice):
    head = speech.SynthesizeConfig(voices=[speech.VoiceConfig(**{"engine": "flite", **voice})], sample_rate_hz=rate_hz)
    return ([speech.SynthesizeRequest(config=head)] if config else []) + list(messages)


def marked(value):
    head = speech.SynthesizeConfig(voices=[speech.VoiceConfig(engine="flite")], sample_rate_hz=16000, ssml=True)
    return [speech.SynthesizeRequest(config=head), text(value)]


def recognise(audio=bytes(3200), **config):
    return asr.RecognizeRequest(config=asr.RecognitionConfig(**{"model": "pocketsphinx", "custom_configuration": {"grammar": GRAMMAR}, **config}), audio=audio)


def stream(*messages, **config):
    head = asr.StreamingRecognitionConfig(config=recognise(**config).config)
    return [asr.StreamingRecognizeRequest(streaming_config=head), *[asr.StreamingRecognizeRequest(audio_content=data) for data in messages]]


def text(value):
    return speech.SynthesizeRequest(text=value)


def flush(number):
    return speech.SynthesizeRequest(flush=speech.Flush(segment=number))


def ask(items=(("user", "hello"),), rules='[{"otherwise": "All right."}]', **more):
    made = [llm.ChatItem(message=llm.Message(role=role, text=said)) for role, said in items]
    return llm.ChatRequest(**{"models": [llm.ModelConfig(engine="rules", rules_json=rules)], "items": made, **more})


def pictures(*urls):
    request = ask()
    request.items[0].message.images.extend(llm.Image(url=url) for url in urls)
    return request


# name, what is sent, the codes that are clear
STT = [
    ("no rate", hear(rate=0), INVALID),
    ("an odd rate", hear(rate=7999), INVALID),
    ("too high a rate", hear(rate=96000), INVALID),
    ("a negative rate", hear(rate=-48000), INVALID),
    ("half a sample", hear(audio(b"\0\0\0")), INVALID),
    ("no sample at all", hear(audio(b"")), OK),
    ("more than a message may hold", hear(audio(bytes(2 << 20))), INVALID),
    ("a frame of 10 MB", hear(audio(bytes(10 << 20))), EXHAUSTED),
    ("the loudest and the strangest samples", hear(audio(struct.pack("<6h", -32768, 32767, -32768, 0, 1, -1) * 4000)), OK),
    ("floats where integers belong", hear(audio(struct.pack("<2f", math.nan, math.inf) * 2000)), OK),
    ("Opus that is none", hear(audio(b"\x03\x00" + bytes(60)), encoding=2), INVALID),
    ("an encoding of the future", hear(encoding=99), INVALID),
    ("audio before its config", hear(audio(bytes(640)), config=False), INVALID),
    ("two configs", hear(*hear()), INVALID),
    ("nothing", [], INVALID),
    ("a message without content", hear(speech.RecognizeRequest()), INVALID),
    ("no engine", hear(engines=()), INVALID),
    ("an unknown engine", hear(engines=("ouija",)), NOT_FOUND),
    ("a chain without end", hear(engines=("pocketsphinx",) * 9), INVALID),
    ("a grammar that is none", hear(grammar="#JSGF V1.0; grammar g; public <u> = ((("), INVALID),
    ("a grammar of 1 MB", hear(grammar="#JSGF V1.0; grammar g; public <u> = " + "yes | " * 180_000 + "no;"), INVALID),
]
TTS = [
    ("text of 1 MB", say(text("word " * 200_000)), INVALID),
    ("text without end", say(*[text("word " * 12_000)] * 8), EXHAUSTED),
    ("flushes without end", say(*[message for i in range(1500) for message in (text("Yes. "), flush(i))]), EXHAUSTED),
    ("a rate that is no number", say(text("hello"), rate=math.nan), INVALID),
    ("a pitch without end", say(text("hello"), pitch=math.inf), INVALID),
    ("one sample a second", say(text("hello"), rate_hz=1), INVALID),
    ("an unknown voice", say(text("hello"), voice="darth"), NOT_FOUND),
    ("brackets where nothing is marked up", say(text("<speak>" * 40 + "hello")), OK),
    ("SSML that nests without end", marked("<speak>" + "<s>" * 40 + "hello"), INVALID),
    ("SSML without an end", marked("<speak>hello"), INVALID),
    ("SSML of seven thousand elements", marked("<speak>" + "<break/>" * 7000 + "</speak>"), INVALID),
    ("SSML that pauses for an hour", marked('<speak><break time="3600s"/></speak>'), INVALID),
    ("SSML that pauses again and again", marked('<speak>' + '<break time="10s"/>' * 7 + '</speak>'), INVALID),
    ("SSML in another voice", marked('<speak><voice name="darth">hello</voice></speak>'), INVALID),
    ("SSML at no pace", marked('<speak><prosody rate="NaN">hello</prosody></speak>'), INVALID),
    ("SSML that says nothing", marked("<speak> </speak>"), OK),
    ("an entity bomb", marked(('<!DOCTYPE a [<!ENTITY b "ha">' + "".join(
        f'<!ENTITY b{i} "{"&b%s;" % (i - 1 or "") * 10}">' for i in range(1, 12)) + "]><speak>&b11;</speak>")), INVALID),
    ("nothing that can be spoken", say(text("*** --- \u200b \U0001F600 ```code```")), OK),
    ("text before its config", say(text("hello"), config=False), INVALID),
]
RIVA_ASR = [
    ("no audio", recognise(b""), INVALID),
    ("half a sample", recognise(bytes(3)), OK),
    ("half a frame of two channels", recognise(bytes(6), audio_channel_count=2), OK),
    ("a thousand channels", recognise(audio_channel_count=1000), INVALID),
    ("fewer channels than none", recognise(audio_channel_count=-1), INVALID),
    ("a negative rate", recognise(sample_rate_hertz=-8000), INVALID),
    ("too high a rate", recognise(sample_rate_hertz=192000), INVALID),
    ("an encoding of the future", recognise(encoding=99), INVALID),
    ("half a WAV file", recognise(b"RIFF\xff\xff\xff\x7fWAVEfmt "), INVALID),
    ("a WAV file that claims 4 GB", recognise(b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\x01\0\x80\x3e\0\0\0\x7d\0\0\x02\0\x10\0data\xff\xff\xff\xff"), INVALID),
    ("a model without an engine", recognise(model="/whisper"), INVALID),
    ("an unknown engine", recognise(model="ouija"), NOT_FOUND),
    ("a grammar that is none", recognise(custom_configuration={"grammar": "#JSGF V1.0; grammar g; public <u> = ((("}), INVALID),
    ("an audio of 10 MB", recognise(bytes(10 << 20)), EXHAUSTED),
]
RIVA_STREAM = [
    ("nothing", [], INVALID),
    ("audio before its config", stream(bytes(640))[1:], INVALID),
    ("two configs", stream() * 2, INVALID),
    ("a message without content", stream() + [asr.StreamingRecognizeRequest()], OK),
    ("a header that goes on for ever", stream(b"RIFF" + b"\xff" * 4 + b"WAVELIST\xff\xff\xff\x7f" + bytes(1 << 20)), INVALID),
    ("an odd rate", stream(bytes(640), sample_rate_hertz=1), INVALID),
]
RIVA_TTS = [
    ("no text", tts.SynthesizeSpeechRequest(), INVALID),
    ("text of 1 MB", tts.SynthesizeSpeechRequest(text="word " * 200_000), INVALID),
    ("one sample a second", tts.SynthesizeSpeechRequest(text="hello", sample_rate_hz=1), INVALID),
    ("a negative rate", tts.SynthesizeSpeechRequest(text="hello", sample_rate_hz=-16000), INVALID),
    ("an encoding of the future", tts.SynthesizeSpeechRequest(text="hello", encoding=99), INVALID),
    ("a voice without an engine", tts.SynthesizeSpeechRequest(text="hello", voice_name="/slt"), INVALID),
    ("an unknown engine", tts.SynthesizeSpeechRequest(text="hello", voice_name="ouija/slt"), NOT_FOUND),
    ("an unknown voice", tts.SynthesizeSpeechRequest(text="hello", voice_name="flite/darth"), NOT_FOUND),
    ("an unknown language", tts.SynthesizeSpeechRequest(text="hello", voice_name="flite/slt", language_code="tlh"), INVALID),
    ("SSML without an end", tts.SynthesizeSpeechRequest(text="<speak>hello"), INVALID),
]
LLM = [
    ("no model", ask(models=[]), INVALID),
    ("an empty item", ask(items=[], tools=[]), OK),
    ("rules that nest without end", ask(rules="[" * 100_000), INVALID),
    ("rules that are no JSON", ask(rules="{rules}"), INVALID),
    ("a history without end", ask(items=(("user", "hi"),) * 10_001), INVALID),
    ("a picture that is none", pictures("data:text/html;base64,AAAA"), INVALID),
    ("a picture in the operator's network", pictures("https://127.0.0.1/a.png"), INVALID),
    ("a hundred pictures", pictures(*["https://a.example/b.png"] * 100), INVALID),
    ("an empty stop", ask(stop=[""]), INVALID),
    ("a hundred stops", ask(stop=["x"] * 100), INVALID),
    ("a form of the future", ask(response_format=llm.ResponseFormat(kind=99)), INVALID),
    ("a pattern that explodes", ask(rules=json.dumps([{"when": "(" * 900 + "a" + ")*" * 900, "say": "x"}])), INVALID),
]


class Lazy:
    """The answers of a call that is made when they are asked for."""

    def __init__(self, call):
        self.call = call

    def __iter__(self):
        return iter(self.call())


class MalformedTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.stt = Gateway("parley-stt-gateway")
        cls.tts = Gateway("parley-tts-gateway")
        cls.llm = Gateway("parley-llm-gateway")

    @classmethod
    def tearDownClass(cls):
        for gateway in (cls.stt, cls.tts, cls.llm):
            gateway.stop()

    def judge(self, name, answers, wanted, saying=""):
        try:
            for _ in answers:
                pass
            got, detail = OK, ""
        except grpc.RpcError as error:
            got, detail = error.code(), error.details()
        self.assertEqual(got, wanted, f"{name}: {detail}")
        self.assertIn(saying, detail, name)
        if got != OK and got != UNPARSED:
            self.assertGreater(len(detail), 10, name)

    def test_recogniser(self):
        stub = speech_pb2_grpc.SpeechToTextServiceStub(self.stt.channel)
        for name, messages, wanted in STT:
            with self.subTest(name):
                self.judge(name, stub.Recognize(iter(messages), metadata=CALLER, timeout=30), wanted)
                self.assertIsNone(self.stt.process.poll(), name)
        self.judge("afterwards", stub.Recognize(iter(hear(audio(tone(0.3, 16000)))), metadata=CALLER, timeout=30), OK)

    def test_voice(self):
        stub = speech_pb2_grpc.TextToSpeechServiceStub(self.tts.channel)
        for name, messages, wanted in TTS:
            with self.subTest(name):
                self.judge(name, stub.Synthesize(iter(messages), metadata=CALLER, timeout=60), wanted)
                self.assertIsNone(self.tts.process.poll(), name)
        self.judge("afterwards", stub.Synthesize(iter(say(text("hello"))), metadata=CALLER, timeout=30), OK)

    def test_riva(self):
        hears = asr_pb2_grpc.RivaSpeechRecognitionStub(self.stt.channel)
        speaks = tts_pb2_grpc.RivaSpeechSynthesisStub(self.tts.channel)
        calls = ([(name, lambda sent=sent: [hears.Recognize(sent, metadata=CALLER, timeout=30)], wanted) for name, sent, wanted in RIVA_ASR]
                 + [(name, lambda sent=sent: hears.StreamingRecognize(iter(sent), metadata=CALLER, timeout=30), wanted)
                    for name, sent, wanted in RIVA_STREAM]
                 + [(name, lambda sent=sent: [speaks.Synthesize(sent, metadata=CALLER, timeout=30)], wanted) for name, sent, wanted in RIVA_TTS]
                 + [(name, lambda sent=sent: speaks.SynthesizeOnline(iter([sent]), metadata=CALLER, timeout=30), wanted)
                    for name, sent, wanted in RIVA_TTS[2:]])
        for name, call, wanted in calls:
            with self.subTest(name):
                self.judge(name, Lazy(call), wanted)
                self.assertIsNone(self.stt.process.poll(), name)
                self.assertIsNone(self.tts.process.poll(), name)
        self.judge("afterwards", Lazy(lambda: [hears.Recognize(recognise(tone(0.3, 16000)), metadata=CALLER, timeout=30)]), OK)
        self.judge("afterwards", Lazy(lambda: [speaks.Synthesize(tts.SynthesizeSpeechRequest(text="hello"), metadata=CALLER, timeout=30)]), OK)

    def test_model(self):
        stub = llm_pb2_grpc.LanguageModelServiceStub(self.llm.channel)
        for name, request, wanted in LLM:
            with self.subTest(name):
                self.judge(name, stub.Chat(request, metadata=CALLER, timeout=30), wanted)
                self.assertIsNone(self.llm.process.poll(), name)
        self.judge("afterwards", stub.Chat(ask(), metadata=CALLER, timeout=30), OK)

    def test_streams_that_nobody_ends(self):
        stt, tts_gateway = (Gateway(f"parley-{kind}-gateway", f"--{kind}-max-stream-time", "1s") for kind in ("stt", "tts"))
        try:
            for gateway, stub, method, head in (
                    (stt, speech_pb2_grpc.SpeechToTextServiceStub, "Recognize", hear()),
                    (tts_gateway, speech_pb2_grpc.TextToSpeechServiceStub, "Synthesize", say())):
                open_for_ever = threading.Event()

                def messages(head=head, end=open_for_ever):
                    yield from head
                    end.wait(20)
                try:
                    self.judge(method, getattr(stub(gateway.channel), method)(messages(), metadata=CALLER, timeout=15),
                               grpc.StatusCode.DEADLINE_EXCEEDED, saying="max-stream-time")
                finally:
                    open_for_ever.set()
        finally:
            stt.stop()
            tts_gateway.stop()

    def test_bytes_that_are_no_message(self):
        """gRPC takes what it cannot read for the end of what the client sends: nothing of it is spoken."""
        method = "/parley.speech.v1.TextToSpeechService/Synthesize"
        call = self.tts.channel.stream_stream(method, lambda raw: raw, lambda raw: raw)
        head = say()[0].SerializeToString()
        for name, raw in (("invalid UTF-8", b"\x12\x04\xff\xfe\xc0\x80"), ("noise", bytes(range(255, 0, -1)))):
            with self.subTest(name):
                spoken = b""
                try:
                    for answer in call(iter([head, raw]), metadata=CALLER, timeout=10):
                        spoken += speech.SynthesizeResponse.FromString(answer).audio.data
                except grpc.RpcError as error:
                    self.assertIn(error.code(), (UNPARSED, INVALID), name)
                if name == "noise":
                    self.assertEqual(spoken, b"", name)
                self.assertIsNone(self.tts.process.poll(), name)


if __name__ == "__main__":
    unittest.main()
