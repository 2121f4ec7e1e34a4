"""The published package `nvidia-riva-client`, unmodified, against the speech gateways: offline, streaming, and voices."""
import pathlib
import sys
import tempfile
import unittest
import wave

BUILD = pathlib.Path(sys.argv.pop(1))

import grpc  # noqa: E402
import riva.client  # noqa: E402
import riva.client.proto.riva_asr_pb2 as rasr  # noqa: E402
import riva.client.proto.riva_tts_pb2 as rtts  # noqa: E402
from services import Service, token  # noqa: E402

GRAMMAR = "#JSGF V1.0; grammar rooms; public <u> = how much is a (single | double | suite) room;"
QUESTION = "how much is a double room"
RATE = 16000


class RivaTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.services = [Service(BUILD, "parley-stt-gateway", "serving", "grpc_port"), Service(BUILD, "parley-tts-gateway", "serving", "grpc_port")]
        auths = [riva.client.Auth(uri=service.address, metadata_args=[["authorization", "Bearer " + token(video={"agent": True})]])
                 for service in cls.services]
        cls.asr = riva.client.ASRService(auths[0])
        cls.tts = riva.client.SpeechSynthesisService(auths[1])
        cls.pcm = cls.tts.synthesize(QUESTION, voice_name="slt", sample_rate_hz=RATE).audio

    @classmethod
    def tearDownClass(cls):
        for service in cls.services:
            service.stop()

    def config(self, **more):
        config = riva.client.RecognitionConfig(sample_rate_hertz=RATE, language_code="en-US", audio_channel_count=1,
                                               encoding=riva.client.AudioEncoding.LINEAR_PCM, enable_word_time_offsets=True, **more)
        config.custom_configuration["grammar"] = GRAMMAR
        return config

    def test_speaks_at_once_and_in_pieces(self):
        self.assertGreater(len(self.pcm) / 2 / RATE, 0.8)
        pieces = list(self.tts.synthesize_online(QUESTION, voice_name="flite/slt", sample_rate_hz=RATE, enable_word_time_offsets=True))
        self.assertGreater(len(pieces), 5)
        self.assertAlmostEqual(sum(len(piece.audio) for piece in pieces) / len(self.pcm), 1, delta=0.05)
        self.assertEqual([word.word for piece in pieces for word in piece.meta.words], QUESTION.split())
        two = b"".join(piece.audio for piece in self.tts.synthesize_online([QUESTION, QUESTION], voice_name="slt", sample_rate_hz=RATE))
        self.assertAlmostEqual(len(two) / len(self.pcm), 2, delta=0.05)

    def test_names_its_voices_and_engines(self):
        voices = self.tts.stub.GetRivaSynthesisConfig(rtts.RivaSynthesisConfigRequest(), metadata=self.tts.auth.get_auth_metadata())
        flite = [model for model in voices.model_config if model.model_name == "flite"][0]
        self.assertIn("slt", flite.parameters["subvoices"])
        engines = self.asr.stub.GetRivaSpeechRecognitionConfig(rasr.RivaSpeechRecognitionConfigRequest(),
                                                               metadata=self.asr.auth.get_auth_metadata())
        self.assertIn("pocketsphinx", [model.model_name for model in engines.model_config])

    def test_hears_offline(self):
        heard = self.asr.offline_recognize(self.pcm, self.config())
        best = heard.results[0].alternatives[0]
        self.assertEqual(best.transcript, QUESTION)
        self.assertEqual([word.word for word in best.words], QUESTION.split())
        self.assertGreater(best.words[-1].end_time, best.words[0].start_time)

    def test_hears_a_file_offline_and_streaming(self):
        with tempfile.NamedTemporaryFile(suffix=".wav") as file:
            with wave.open(file.name, "wb") as out:
                out.setnchannels(2)
                out.setsampwidth(2)
                out.setframerate(RATE)
                out.writeframes(b"".join(self.pcm[i:i + 2] + b"\0\0" for i in range(0, len(self.pcm), 2)))
            config = riva.client.RecognitionConfig(language_code="en-US", max_alternatives=1)
            config.custom_configuration["grammar"] = GRAMMAR
            riva.client.add_audio_file_specs_to_config(config, file.name)
            heard = self.asr.offline_recognize(pathlib.Path(file.name).read_bytes(), config)
            self.assertEqual(heard.results[0].alternatives[0].transcript, QUESTION)
            with riva.client.AudioChunkFileIterator(file.name, 1600) as chunks:
                finals = [result.alternatives[0].transcript for response in self.asr.streaming_response_generator(
                    chunks, riva.client.StreamingRecognitionConfig(config=config)) for result in response.results if result.is_final]
            self.assertEqual(finals, [QUESTION])

    def test_hears_utterance_after_utterance_as_they_come(self):
        audio = (self.pcm + bytes(RATE * 2 * 3 // 2)) * 2
        chunks = [audio[i:i + 3200] for i in range(0, len(audio), 3200)]
        partials, finals = [], []
        for response in self.asr.streaming_response_generator(
                chunks, riva.client.StreamingRecognitionConfig(config=self.config(), interim_results=True)):
            for result in response.results:
                (finals if result.is_final else partials).append(result.alternatives[0].transcript)
        self.assertEqual(finals, [QUESTION, QUESTION])
        self.assertTrue(partials)

    def test_mistakes_have_their_errors(self):
        def code(call):
            with self.assertRaises(grpc.RpcError) as caught:
                call()
            return caught.exception.code()

        stranger = riva.client.ASRService(riva.client.Auth(uri=self.services[0].address))
        self.assertEqual(code(lambda: stranger.offline_recognize(self.pcm, self.config())), grpc.StatusCode.UNAUTHENTICATED)
        self.assertEqual(code(lambda: self.asr.offline_recognize(self.pcm, self.config(model="nobody"))), grpc.StatusCode.NOT_FOUND)
        self.assertEqual(code(lambda: self.asr.offline_recognize(b"", self.config())), grpc.StatusCode.INVALID_ARGUMENT)
        flac = self.config()
        flac.encoding = riva.client.AudioEncoding.FLAC
        self.assertEqual(code(lambda: self.asr.offline_recognize(self.pcm, flac)), grpc.StatusCode.INVALID_ARGUMENT)
        self.assertEqual(code(lambda: self.tts.synthesize("x", voice_name="nobody")), grpc.StatusCode.NOT_FOUND)
        self.assertEqual(code(lambda: self.tts.synthesize("x", sample_rate_hz=100)), grpc.StatusCode.INVALID_ARGUMENT)
        self.assertEqual(code(lambda: list(self.asr.stub.StreamingRecognize(
            iter([rasr.StreamingRecognizeRequest(audio_content=b"ab")]), metadata=self.asr.auth.get_auth_metadata()))),
            grpc.StatusCode.INVALID_ARGUMENT)


if __name__ == "__main__":
    unittest.main()
