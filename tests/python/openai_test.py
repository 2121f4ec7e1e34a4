"""The published package `openai`, unmodified, against api_server: speech, transcriptions, chat with tools, streamed or not."""
import asyncio
import http.server
import io
import json
import pathlib
import sys
import tempfile
import threading
import unittest
import wave

BUILD = pathlib.Path(sys.argv.pop(1))

import openai  # noqa: E402
import pydantic  # noqa: E402
from services import Service, token  # noqa: E402

SCRIPT = {"llm": {"answers": [
    {"when": "how much", "call": "room_rate", "arguments": {"room": "single"}},
    {"when": "room_rate", "text": "It is 89 euros."},
    {"text": "Good day to you."}]}}
TOOLS = [{"type": "function", "function": {"name": "room_rate", "description": "Nightly rate", "parameters": {
    "type": "object", "properties": {"room": {"type": "string"}}, "required": ["room"]}}}]


class Provider(http.server.BaseHTTPRequestHandler):
    """Answers of the model gpt-json are JSON, the others have no end."""
    asked = None

    def do_POST(self):  # noqa: N802
        Provider.asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        if Provider.asked["model"] != "gpt-json":
            self.wfile.write(b'data: {"choices":[{"delta":{"content":"Half an"}}]}\n\n')
            return
        for delta, finish in (({"content": '{"room": "single", '}, None), ({"content": '"euros": 89}'}, None), ({}, "stop")):
            chunk = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, *_):
        pass


class OpenAiTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.provider = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Provider)
        threading.Thread(target=cls.provider.serve_forever, daemon=True).start()
        cls.directory = tempfile.TemporaryDirectory()
        script = pathlib.Path(cls.directory.name) / "script.json"
        script.write_text(json.dumps(SCRIPT))
        gateways = [Service(BUILD, f"parley-{kind}-gateway", "serving", "grpc_port", *flags) for kind, flags in (
            ("stt", ("--stt-preload", "false")), ("tts", ()), ("llm", ("--llm-script", str(script), "--llm-openai-base-url", f"http://127.0.0.1:{cls.provider.server_port}/v1")))]
        flags = [flag for kind, gateway in zip(("stt", "tts", "llm"), gateways)
                 for flag in (f"--{kind}-address", gateway.address)]
        api = Service(BUILD, "parley-api-server", "listening", "http_port", "--http-ports", "0", *flags)
        cls.services = [api, *gateways]
        cls.client = openai.OpenAI(api_key=token(video={"roomCreate": True}), base_url=f"http://{api.address}/v1",
                                   max_retries=0, timeout=60)

    @classmethod
    def tearDownClass(cls):
        cls.client.close()
        for service in cls.services:
            service.stop()
        cls.provider.shutdown()
        cls.provider.server_close()
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

    def test_the_asynchronous_client(self):
        async def talk():
            async with openai.AsyncOpenAI(api_key=self.client.api_key, base_url=self.client.base_url, max_retries=0) as client:
                stream = await client.chat.completions.create(model="scripted", stream=True,
                                                              messages=[{"role": "developer", "content": "Be kind."},
                                                                        {"role": "user", "content": "hello"}])
                return "".join([choice.delta.content or "" async for chunk in stream for choice in chunk.choices])

        self.assertEqual(asyncio.run(talk()), "Good day to you.")

    def test_models(self):
        self.assertLessEqual({"rules", "scripted"}, {model.id for model in self.client.models.list()})

    def test_a_stream_that_breaks_off_is_an_error(self):
        stream, said = self.client.chat.completions.create(
            model="gpt-x", stream=True, messages=[{"role": "user", "content": "x"}]), ""
        with self.assertRaises(openai.APIError):
            for chunk in stream:
                said += chunk.choices[0].delta.content or ""
        self.assertEqual(said, "Half an")
        with self.assertRaises(openai.InternalServerError):
            self.client.chat.completions.create(model="gpt-x", messages=[{"role": "user", "content": "x"}])

    def test_answers_as_json(self):
        class Rate(pydantic.BaseModel):
            room: str
            euros: int

        question = [{"role": "user", "content": "How much is a single room?"}]
        parsed = self.client.chat.completions.parse(model="gpt-json", messages=question, response_format=Rate)
        self.assertEqual(parsed.choices[0].message.parsed, Rate(room="single", euros=89))
        asked = Provider.asked["response_format"]
        self.assertEqual((asked["type"], asked["json_schema"]["name"]), ("json_schema", "Rate"))
        self.assertEqual(set(asked["json_schema"]["schema"]["properties"]), {"room", "euros"})
        whole = self.client.chat.completions.create(model="gpt-json", messages=question, response_format={"type": "json_object"})
        self.assertEqual(json.loads(whole.choices[0].message.content)["euros"], 89)
        self.assertEqual(Provider.asked["response_format"], {"type": "json_object"})

    def test_shows_pictures(self):
        content = [{"type": "text", "text": "What is it?"},
                   {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}},
                   {"type": "image_url", "image_url": {"url": "https://pictures.example/room.png"}}]
        answer = self.client.chat.completions.create(model="gpt-json", messages=[{"role": "user", "content": content}])
        self.assertEqual(json.loads(answer.choices[0].message.content)["room"], "single")
        self.assertEqual(Provider.asked["messages"], [{"role": "user", "content": content}])
        content[2]["image_url"]["url"] = "https://192.168.0.1/room.png"
        with self.assertRaises(openai.BadRequestError):
            self.client.chat.completions.create(model="gpt-json", messages=[{"role": "user", "content": content}])

    def test_stops_where_it_is_told(self):
        self.assertEqual(self.ask("hello", stop=" to").choices[0].message.content, "Good day")
        self.client.chat.completions.create(model="gpt-json", stop=["END", "euros"], messages=[{"role": "user", "content": "x"}])
        self.assertEqual(Provider.asked["stop"], ["END", "euros"])
        with self.assertRaisesRegex(openai.BadRequestError, "n must be 1"):
            self.ask("hello", n=2)

    def test_mistakes_have_their_own_errors(self):
        with self.assertRaises(openai.NotFoundError):  # this gateway has no such engine
            self.client.audio.speech.create(model="tts-1", voice="alloy", input="x")
        with self.assertRaises(openai.BadRequestError) as caught:
            self.client.chat.completions.create(model="scripted", messages=[{"role": "nobody", "content": "x"}])
        self.assertIn("role", str(caught.exception))
        with self.assertRaises(openai.AuthenticationError):
            openai.OpenAI(api_key="nonsense", base_url=self.client.base_url, max_retries=0).chat.completions.create(
                model="scripted", messages=[{"role": "user", "content": "x"}])


if __name__ == "__main__":
    unittest.main()
