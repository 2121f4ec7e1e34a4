"""Tones instead of words: what the voice agent of the tests and its caller say to each other."""
import math
from array import array

RATE = 24_000


def tone(hertz, seconds):
    return array("h", (int(8000 * math.sin(2 * math.pi * hertz * i / RATE)) for i in range(int(seconds * RATE))))


def pitch(samples):
    """To the nearest 100 Hz; what is silent before and after does not count."""
    loud = [i for i, sample in enumerate(samples) if abs(sample) > 1000]
    if not loud:
        return 0
    sounding = samples[loud[0]:loud[-1] + 1]
    rises = sum(1 for before, after in zip(sounding, sounding[1:]) if before < 0 <= after)
    return round(rises * RATE / len(sounding) / 100) * 100
