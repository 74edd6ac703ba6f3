"""The ready-made grammars mean what their examples say; hassil, which defined the syntax, is the oracle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hassil import Intents, recognize_all, recognize_best
from hassil.expression import Group, ListReference
from hassil.intents import TextSlotList

from edgevoice.errors import ConfigError
from edgevoice.recognise import shipped_grammar, shipped_grammars

_ROOT = Path(__file__).parents[1]
_SAMPLES = [
    json.loads(line)
    for line in (_ROOT / "samples" / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
]
_DATA: dict[str, dict[str, Any]] = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in sorted((_ROOT / "grammars").glob("*.yaml"))
}
_INTENTS = {name: Intents.from_dict(data) for name, data in _DATA.items()}

_HOMES = [name for name in _DATA if name.startswith("home")]

_EXPECTED = [
    pytest.param(name, example, id=f"{name}: {example['say']}")
    for name, data in _DATA.items()
    for example in data["expected"]
]
_REFUSED = [
    pytest.param(name, sentence, id=f"{name}: {sentence}")
    for name, data in _DATA.items()
    for sentence in data["refused"]
]


def _slots(result: Any) -> dict[str, Any]:
    """Slot values of a hassil result; text values carry the spaces around the match, which mean nothing."""
    return {
        slot: entity.value.strip() if isinstance(entity.value, str) else entity.value
        for slot, entity in result.entities.items()
    }


@pytest.mark.parametrize(("name", "example"), _EXPECTED)
def test_expected_sentence_has_its_intent_and_slots(name: str, example: dict[str, Any]) -> None:
    """A sentence under `expected` gives exactly the intent and the slots written beside it."""
    result = recognize_best(example["say"], _INTENTS[name])
    assert result is not None
    assert (result.intent.name, _slots(result)) == (example["intent"], example["slots"])


@pytest.mark.parametrize(("name", "example"), _EXPECTED)
def test_expected_sentence_has_one_meaning(name: str, example: dict[str, Any]) -> None:
    """No second reading of a sentence under `expected` exists."""
    readings = {
        (result.intent.name, tuple(sorted((slot, str(value)) for slot, value in _slots(result).items())))
        for result in recognize_all(example["say"], _INTENTS[name])
    }
    assert len(readings) == 1


@pytest.mark.parametrize(("name", "sentence"), _REFUSED)
def test_refused_sentence_is_not_understood(name: str, sentence: str) -> None:
    """A sentence under `refused` is no sentence of the grammar."""
    assert recognize_best(sentence, _INTENTS[name]) is None


@pytest.mark.parametrize("name", _DATA)
def test_every_intent_is_shown_by_an_example(name: str) -> None:
    """No intent is without an `expected` sentence, and none of those names an intent that does not exist."""
    assert {example["intent"] for example in _DATA[name]["expected"]} == set(_DATA[name]["intents"])


@pytest.mark.parametrize("name", _DATA)
def test_free_text_has_a_word_before_it(name: str) -> None:
    """No sentence begins with free text, which would take every sentence for itself."""
    free = {key for key, value in _DATA[name]["lists"].items() if value.get("wildcard")}
    assert free == ({"item", "message"} if name in _HOMES else set())
    for intent in _INTENTS[name].intents.values():
        for sentence in (sentence for block in intent.data for sentence in block.sentences):
            assert isinstance(sentence.expression, Group)
            first = sentence.expression.items[0]
            assert not (isinstance(first, ListReference) and first.list_name in free), sentence.text


def test_homes_are_found_by_their_language() -> None:
    """Each language has one home grammar, which says so itself; without a language it is the English one."""
    found = shipped_grammars()
    assert sorted(found) == ["de", "en", "es", "fr", "it", "nl", "pt"]
    assert {code: _DATA[path.stem]["language"] for code, path in found.items()} == {
        code: code for code in found
    }
    assert shipped_grammar() == shipped_grammar("en") == _ROOT / "grammars" / "home.yaml"
    assert shipped_grammar("fr") == _ROOT / "grammars" / "home.fr.yaml"


def test_home_of_a_language_without_one() -> None:
    """The error names the languages there are, and what to do."""
    with pytest.raises(ConfigError, match=r"'sv' seen; .* for de, en, es, fr, it, nl, pt; .* grammar\.file"):
        shipped_grammar("sv")


@pytest.mark.parametrize("name", _HOMES)
def test_homes_have_the_same_intents_and_slots(name: str) -> None:
    """What a program must know does not depend on the language: intents, slots, technical values."""
    assert _vocabulary(name) == _vocabulary("home")


def _vocabulary(name: str) -> dict[str, set[tuple[str, str]]]:
    """Slots of each intent, by the examples, and the values of those that are not spoken."""
    found: dict[str, set[tuple[str, str]]] = {}
    for example in _DATA[name]["expected"]:
        slots = found.setdefault(example["intent"], set())
        for slot, value in example["slots"].items():
            slots.add((slot, str(value) if slot in {"domain", "volume_step"} else ""))
    return found


@pytest.mark.parametrize("name", _HOMES)
@pytest.mark.parametrize("prefix", ["shade", "color", "brightness_word"])
def test_homes_have_the_same_technical_values(name: str, prefix: str) -> None:
    """Kinds of covers, colours and brightnesses in words are the same values in every language."""
    assert _values(name, prefix) == _values("home", prefix)


def _values(name: str, prefix: str) -> set[object]:
    """Every value of the lists whose name begins so."""
    return {
        value.value_out
        for key, slot_list in _INTENTS[name].slot_lists.items()
        if key.startswith(prefix) and isinstance(slot_list, TextSlotList)
        for value in slot_list.values
    }


@pytest.mark.parametrize("sample", _SAMPLES, ids=lambda sample: sample["audio"])
def test_sample_recording_says_what_its_manifest_promises(sample: dict[str, Any]) -> None:
    """Its words have the intent and slots of the manifest in home.yaml; those of a refused one have none."""
    assert (_ROOT / "samples" / sample["audio"]).is_file()
    result = recognize_best(sample["text"], _INTENTS["home"])
    assert sample["accepted"] == (result is not None)
    if result is not None:
        assert (result.intent.name, _slots(result)) == (sample["intent"], sample["slots"])
    else:
        assert sample["reason"]


def test_manifest_lists_every_sample() -> None:
    """A recording without a line in the manifest would be tested by nothing."""
    recordings = {path.name for path in (_ROOT / "samples").iterdir() if path.suffix in {".flac", ".wav"}}
    assert recordings == {sample["audio"] for sample in _SAMPLES}
