#!/usr/bin/env python3
"""silero_reference.py MODEL OUT: what the published model says of a sound, by ONNX Runtime.

OUT gets pairs of files of 32-bit floats: input (512 samples a chunk) and expected (one probability a chunk). The sound is recordings of
people, bursts of tones, noise and silence: what it is does not matter, only that both say the same of it.
"""
import pathlib
import sys
import wave

import numpy as np
import onnxruntime

RATE, CHUNK, CONTEXT = 16000, 512, 64


def recording():
    """People, where Debian's alsa-utils is installed: numbers and directions, spoken."""
    parts = []
    for path in sorted(pathlib.Path("/usr/share/sounds/alsa").glob("*.wav")):
        with wave.open(str(path)) as file:
            if file.getframerate() != 3 * RATE or file.getsampwidth() != 2:
                continue
            samples = np.frombuffer(file.readframes(file.getnframes()), np.int16).reshape(-1, file.getnchannels())[:, 0]
        third = samples[: len(samples) // 3 * 3].reshape(-1, 3).mean(1) / 32768
        parts.append(third)
    return parts


def sound():
    random = np.random.default_rng(7)
    t = np.arange(8 * RATE) / RATE
    voice = sum(np.sin(2 * np.pi * 130 * (1 + 0.05 * np.sin(2 * np.pi * 3 * t)) * k * t) / k for k in range(1, 20))
    voice *= (np.sin(2 * np.pi * 2.5 * t) > 0) * (0.6 + 0.4 * np.sin(2 * np.pi * 7 * t))
    parts = recording() + [0.05 * voice, 0.02 * random.standard_normal(2 * RATE), np.zeros(RATE), 0.2 * voice[: 3 * RATE]]
    samples = np.concatenate(parts).astype(np.float32)
    return samples[: len(samples) // CHUNK * CHUNK]


def main():
    model, out = sys.argv[1], pathlib.Path(sys.argv[2])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    samples = sound()
    state, context, said = np.zeros((2, 1, 128), np.float32), np.zeros(CONTEXT, np.float32), []
    for chunk in samples.reshape(-1, CHUNK):
        given = {"input": np.concatenate([context, chunk])[None], "state": state, "sr": np.array(RATE, np.int64)}
        probability, state = session.run(None, given)
        context = chunk[-CONTEXT:]
        said.append(probability.item())
    samples.tofile(out / "input")
    np.array(said, np.float32).tofile(out / "expected")
    print(f"{len(said)} chunks, {sum(p > 0.5 for p in said)} of them speech")


if __name__ == "__main__":
    main()
