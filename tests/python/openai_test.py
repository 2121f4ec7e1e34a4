"""The published package `openai`, unmodified, against api_server: speech, transcriptions, chat with tools, streamed or not."""
import io
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import wave

BUILD = pathlib.Path(sys.argv.pop(1))

import base64  # noqa: E402
import hashlib  # noqa: E402
import hmac  # noqa: E402

import openai  # noqa: E402

SCRIPT = {"llm": {"answers": [
    {"when": "how much", "call": "room_rate", "arguments": {"room": "single"}},
    {"when": "room_rate", "text": "It is 89 euros."},
    {"text": "Good day to you."}]}}
TOOLS = [{"type": "function", "function": {"name": "room_rate", "description": "Nightly rate", "parameters": {
    "type": "object", "properties": {"room": {"type": "string"}}, "required": ["room"]}}}]


def token(**grants):
    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    now = int(time.time())
    body = part({"alg": "HS256", "typ": "JWT"}) + b"." + part({"iss": "devkey", "sub": "python", "nbf": now - 1, "exp": now + 3600,
                                                              **grants})
    signature = hmac.new(b"secret", body, hashlib.sha256).digest()
    return (body + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


class Service:
    def __init__(self, name, line, field, *flags):
        self.process = subprocess.Popen(
            [str(BUILD / "bin" / name), "--dev", "true", "--grpc-port", "0", "--admin-port", "0", *flags],
            stderr=subprocess.PIPE, text=True, env={**os.environ, "PARLEY_CLUSTER_KEY": "0123456789abcdef0123456789abcdef"})
        while True:
            text = self.process.stderr.readline()
            assert text, f"{name} did not start"
            if f'"msg":"{line}"' in text:
                break
        self.address = f"127.0.0.1:{json.loads(text)[field]}"
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def stop(self):
        self.process.terminate()
        self.process.wait(20)


class OpenAiTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.TemporaryDirectory()
        script = pathlib.Path(cls.directory.name) / "script.json"
        script.write_text(json.dumps(SCRIPT))
        gateways = [Service(f"parley-{kind}-gateway", "serving", "grpc_port", *flags) for kind, flags in (
            ("stt", ("--stt-preload", "false")), ("tts", ()), ("llm", ("--llm-script", str(script))))]
        flags = [flag for kind, gateway in zip(("stt", "tts", "llm"), gateways)
                 for flag in (f"--{kind}-address", gateway.address)]
        api = Service("parley-api-server", "listening", "http_port", "--http-ports", "0", *flags)
        cls.services = [api, *gateways]
        cls.client = openai.OpenAI(api_key=token(video={"roomCreate": True}), base_url=f"http://{api.address}/v1",
                                   max_retries=0, timeout=60)

    @classmethod
    def tearDownClass(cls):
        cls.client.close()
        for service in cls.services:
            service.stop()
        cls.directory.cleanup()

    def ask(self, text, **more):
        return self.client.chat.completions.create(model="scripted", messages=[{"role": "user", "content": text}], **more)

    def test_answers(self):
        answer = self.ask("hello")
        self.assertEqual(answer.choices[0].message.content, "Good day to you.")
        self.assertEqual(answer.choices[0].finish_reason, "stop")
        self.assertEqual(answer.object, "chat.completion")
        self.assertGreaterEqual(answer.usage.total_tokens, 0)

    def test_streams(self):
        pieces, usage, finish = [], None, None
        for chunk in self.ask("hello", stream=True, stream_options={"include_usage": True}):
            usage = chunk.usage or usage
            for choice in chunk.choices:
                pieces.append(choice.delta.content or "")
                finish = choice.finish_reason or finish
        self.assertEqual("".join(pieces), "Good day to you.")
        self.assertGreater(len(pieces), 3)
        self.assertEqual(finish, "stop")
        self.assertIsNotNone(usage)

    def test_calls_tools_and_goes_on(self):
        question = {"role": "user", "content": [{"type": "text", "text": "How much is a single room?"}]}
        first = self.client.chat.completions.create(model="scripted", messages=[question], tools=TOOLS, tool_choice="auto")
        message = first.choices[0].message
        self.assertEqual(first.choices[0].finish_reason, "tool_calls")
        self.assertEqual(message.tool_calls[0].function.name, "room_rate")
        self.assertEqual(json.loads(message.tool_calls[0].function.arguments), {"room": "single"})
        second = self.client.chat.completions.create(model="scripted", tools=TOOLS, messages=[
            question, message, {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "89"}])
        self.assertEqual(second.choices[0].message.content, "It is 89 euros.")
        streamed = [call for chunk in self.ask("how much", stream=True, tools=TOOLS) for choice in chunk.choices
                    for call in choice.delta.tool_calls or []]
        self.assertEqual([call.function.name for call in streamed], ["room_rate"])

    def test_speaks_and_understands_itself(self):
        spoken = self.client.audio.speech.create(model="flite", voice="slt", input="how much is a double room",
                                                 response_format="wav")
        data = spoken.read()
        with wave.open(io.BytesIO(data)) as wav:
            self.assertEqual(wav.getframerate(), 24000)
            self.assertGreater(wav.getnframes() / wav.getframerate(), 0.8)
        grammar = "#JSGF V1.0; grammar rooms; public <u> = how much is a (single | double | suite) room;"
        heard = self.client.audio.transcriptions.create(model="pocketsphinx", file=("say.wav", data), prompt=grammar)
        self.assertEqual(heard.text, "how much is a double room")
        with self.client.audio.speech.with_streaming_response.create(
                model="flite", voice="slt", input="good day", response_format="pcm") as response:
            self.assertGreater(sum(len(piece) for piece in response.iter_bytes()), 10000)

    def test_mistakes_have_their_own_errors(self):
        with self.assertRaises(openai.NotFoundError):
            self.client.chat.completions.create(model="gpt-unknown", messages=[{"role": "user", "content": "x"}])
        with self.assertRaises(openai.BadRequestError) as caught:
            self.client.chat.completions.create(model="scripted", messages=[{"role": "nobody", "content": "x"}])
        self.assertIn("role", str(caught.exception))
        with self.assertRaises(openai.AuthenticationError):
            openai.OpenAI(api_key="nonsense", base_url=self.client.base_url, max_retries=0).chat.completions.create(
                model="scripted", messages=[{"role": "user", "content": "x"}])


if __name__ == "__main__":
    unittest.main()
