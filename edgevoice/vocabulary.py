"""Vocabulary: the words of a Whisper model as bytes, from any of the files that hold them.

| file | from |
|---|---|
| `vocabulary.txt`, `vocabulary.json` (a list) | CTranslate2 |
| `vocab.json`, `tokenizer.json` | Hugging Face |
| `gpt2.tiktoken`, `multilingual.tiktoken` | OpenAI's package |
| a ggml model | whisper.cpp, or ours |

All Whisper models have one of two vocabularies, the English and the multilingual one; what large-v3 adds are
names that whisper.cpp has of its own. The words in upstream's weightless models are no use: there, each token
that is not UTF-8 on its own has become U+FFFD.
"""

from __future__ import annotations

import base64
import json
import re
import struct
from typing import TYPE_CHECKING, Final

from edgevoice import ggml_file
from edgevoice.errors import ModelCorruptError, ModelNotFoundError
from edgevoice.ggml_file import ENGLISH_VOCABULARY, MAX_WORD_BYTES, N_WORDS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_MAX_BYTES: Final = 1 << 23  # a multilingual tokenizer.json has half of it
_END_OF_TEXT: Final = "<|endoftext|>"
_TIKTOKEN_LINE: Final = re.compile(rb"[A-Za-z0-9+/=]+ \d+")


def words(path: Path, n_vocab: int) -> list[bytes]:
    """Return the words that a ggml model of so many tokens has, of which the rest are names.

    An English model has GPT-2's with end-of-text; a multilingual one an empty word in the place of that.

    Raises:
        ModelNotFoundError: there is no such file.
        ModelCorruptError: it is no vocabulary, or that of other models.
    """
    english = n_vocab == ENGLISH_VOCABULARY
    try:
        with path.open("rb") as file:
            if file.read(4) == struct.pack("<I", ggml_file.MAGIC):
                return _of_ggml(path, english)
            file.seek(0)
            data = file.read(_MAX_BYTES)  # what is cut is no JSON, and has not all words
        if _TIKTOKEN_LINE.fullmatch(data.partition(b"\n")[0]):
            found = _of_tiktoken(data, english)
        else:
            found = _spelled(_texts(path, data, n_vocab, english), english)
    except FileNotFoundError:
        raise ModelNotFoundError(f"{path} is missing: the model needs the vocabulary it came with") from None
    except (OSError, ValueError, AttributeError, TypeError, KeyError, RecursionError) as error:
        raise ModelCorruptError(
            f"{path.name} is no vocabulary of Whisper ({error}); fetch it again"
        ) from None
    for word in found:
        if len(word) > MAX_WORD_BYTES:
            raise ModelCorruptError(
                f"{path.name} has a word of {len(word)} bytes, more than {MAX_WORD_BYTES}; fetch it again"
            )
    return found


def _of_ggml(path: Path, english: bool) -> list[bytes]:
    header, found = ggml_file.read_words(path)
    if (header.n_vocab == ENGLISH_VOCABULARY) != english or len(found) < N_WORDS:
        raise _other(path, f"{len(found)} words of {header.n_vocab}", english)
    return found[:N_WORDS]


def _of_tiktoken(data: bytes, english: bool) -> list[bytes]:
    """Return the words of OpenAI's file: lines of base64 and number."""
    ranks = {}
    for line in filter(None, data.split(b"\n")):
        word, _, rank = line.partition(b" ")
        ranks[int(rank)] = base64.b64decode(word)
    expected = N_WORDS - english  # end-of-text is not in it
    if sorted(ranks) != list(range(expected)):
        raise ValueError(f"{len(ranks)} words, not the {expected} of {_kind(english)} models")
    return [ranks[rank] for rank in range(expected)] + [_END_OF_TEXT.encode()] * english


def _texts(path: Path, data: bytes, n_vocab: int, english: bool) -> list[str]:
    """Return the first N_WORDS words as they are spelled in text or JSON."""
    end = N_WORDS - english
    if data.lstrip()[:1] not in (b"{", b"["):
        listed = data.decode().removesuffix("\n").split("\n")
    else:
        parsed = json.loads(data.decode())
        if isinstance(parsed, dict):  # Hugging Face
            return _of_numbers(path, parsed, end)
        listed = parsed
    if len(listed) != n_vocab or listed.index(_END_OF_TEXT) != end:
        raise _other(path, f"{len(listed)} words, end-of-text at {listed.index(_END_OF_TEXT)}", english)
    return listed[:N_WORDS]


def _of_numbers(path: Path, parsed: Mapping[str, object], end: int) -> list[str]:
    """Return the words of a map from word to number, in which names may be missing."""
    model = parsed.get("model")
    numbers = model["vocab"] if isinstance(model, dict) else parsed
    if not isinstance(numbers, dict) or not all(type(number) is int for number in numbers.values()):
        raise ValueError("its words have no numbers")
    by_number = {number: word for word, number in numbers.items() if number < N_WORDS}
    if by_number.get(end, _END_OF_TEXT) != _END_OF_TEXT or (at := numbers.get(_END_OF_TEXT, end)) != end:
        raise _other(path, f"{len(numbers)} words, {_END_OF_TEXT} at {at}", english=end < N_WORDS)
    by_number.setdefault(N_WORDS - 1, _END_OF_TEXT if end < N_WORDS else "")
    if sorted(by_number) != list(range(N_WORDS)):
        raise _other(path, f"{len(by_number)} of {N_WORDS} words", english=end < N_WORDS)
    return [by_number[number] for number in range(N_WORDS)]


def _spelled(texts: list[str], english: bool) -> list[bytes]:
    """Undo GPT-2's spelling of bytes as printable characters."""
    byte_of = gpt2_bytes()
    found = []
    for number, text in enumerate(texts):
        if english and number == N_WORDS - 1:
            found.append(_END_OF_TEXT.encode())
            continue
        try:
            found.append(bytes(byte_of[letter] for letter in text))
        except (KeyError, TypeError):
            raise ValueError(f"the word {text!r:.80}, which GPT-2 cannot spell") from None
    return found


def gpt2_bytes() -> dict[str, int]:
    """Return GPT-2's map from letters to bytes: printable Latin-1 is itself, the rest follows U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


def _kind(english: bool) -> str:
    return "English" if english else "multilingual"


def _other(path: Path, what: str, english: bool) -> ModelCorruptError:
    return ModelCorruptError(
        f"{path.name} has {what}, and cannot belong to a model that is {_kind(english)}; use the file that "
        "came with it"
    )
