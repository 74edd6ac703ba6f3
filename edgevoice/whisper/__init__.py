"""Whisper for Python, without commands: transcription by whisper.cpp, as safe as Python is.

    from edgevoice import audio, models, whisper

    with whisper.Model(models.find("tiny.en")) as model, model.session() as session:
        print(session.transcribe(audio.read_audio("talk.flac")).text)

    model.py     Model: weights and vocabulary; may serve many sessions, in many threads
    session.py   Session: transcribes, one thread at a time; keeps its model
    run.py       Run: a transcription in a thread of its own, its segments as they are found
    options.py   Options: how; what cannot take effect is an error
    results.py   Transcription, Segment, Word, Token, Timings
    gbnf.py      Gbnf: a grammar that the text cannot leave
    speech.py    where speech is, and a transcription of that alone
    stream.py    Stream: text while it is spoken
    parts.py     parts of a recording, each in its language; without what is made up in silence
    pieces.py    recordings of any length, in pieces; pieces at the same time
    writers.py   text, subtitles, JSON

docs/whisper.md tells what each function of whisper.cpp became.
"""

from edgevoice.native import gpus, kernels, whisper_version
from edgevoice.whisper.gbnf import Gbnf
from edgevoice.whisper.model import ALIGNMENTS, Model, ModelType, SpecialTokens
from edgevoice.whisper.options import Options
from edgevoice.whisper.parts import transcribe_parts
from edgevoice.whisper.pieces import transcribe_blocks, transcribe_parallel
from edgevoice.whisper.results import Segment, Timings, Token, Transcription, Word
from edgevoice.whisper.run import Run
from edgevoice.whisper.session import CancelToken, Session
from edgevoice.whisper.speech import SpeechOptions, find_speech, transcribe_speech
from edgevoice.whisper.stream import Stream, StreamOptions, Update
from edgevoice.whisper.writers import Layout, render

__all__ = [
    "ALIGNMENTS",
    "CancelToken",
    "Gbnf",
    "Layout",
    "Model",
    "ModelType",
    "Options",
    "Run",
    "Segment",
    "Session",
    "SpecialTokens",
    "SpeechOptions",
    "Stream",
    "StreamOptions",
    "Timings",
    "Token",
    "Transcription",
    "Update",
    "Word",
    "find_speech",
    "gpus",
    "kernels",
    "render",
    "transcribe_blocks",
    "transcribe_parallel",
    "transcribe_parts",
    "transcribe_speech",
    "whisper_version",
]
