"""Home Assistant's sentences mean in the imported grammar what they mean to Home Assistant."""

from __future__ import annotations

import importlib.util
import time
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hassil import Intents, TextSlotList, recognize_best
from home_assistant_intents import get_intents

from edgevoice import match
from edgevoice.entities import Entity, Home, Place
from edgevoice.errors import GrammarError, UsageError
from edgevoice.grammar_writer import render
from edgevoice.import_home_assistant import Sentences, draft, folder_sentences, package_sentences

if TYPE_CHECKING:
    from pathlib import Path

    from hassil.intents import SlotList

    from tests.conftest import Edgevoice, MakeGrammar

QUICK_S = 5.0  # idle machine: 1 s

HOME = Home(
    "a test",
    entities=(
        Entity("Desk lamp", "light", ("work light",), area="Study"),
        Entity("Bed lamp", "light"),
        Entity("Garage door", "cover", device_class="garage"),
        Entity("Fan (big)", "fan"),
        Entity("Front door", "lock"),
        Entity("Movie night", "scene"),
        Entity("Shopping list", "todo"),
    ),
    areas=(Place("Kitchen"), Place("Living Room", ("lounge",)), Place("Study")),
    floors=(Place("Ground floor"), Place("First floor", ("upstairs",))),
)

SAID = [
    "turn on the desk lamp",
    "turn off the bed lamp in the study please",
    "turn the work light off",
    "activate movie night",
    "movie night",
    "open the garage door",
    "garage door",
    "lock the front door",
    "is the front door locked",
    "turn on the lights in the lounge",
    "turn on the lights",
    "turn on fan (big)",
    "turn off all the lights upstairs",
    "open the kitchen blinds",
    "set desk lamp brightness to 40 percent",
    "set the kitchen to red",
    "set a timer for five minutes",
    "set a pizza timer for 1 hour and 30 minutes",
    "add dog food to shopping list",
    "what time is it",
    "what is the temperature in the living room",
    "broadcast dinner is ready",
    "nevermind",
    "turn on the toaster",
    "open the desk lamp",
    "tell me a joke",
]

OLD = {
    "en/_common.yaml": """\
language: en
settings: {filter_with_regex: false}
responses: {errors: {no_intent: Sorry}}
lists:
  color: {values: [{in: red, out: red}, {in: "[dark] blue", out: blue}]}
  unused: {range: {from: 0, to: 5}}
expansion_rules:
  the: "(the|my)"
  unused: "nobody"
  place: "[<the>] ({area}|{floor})"
skip_words: [please]
""",
    "en/light_On.yaml": """\
language: en
intents:
  On:
    data:
      - sentences:
          - "turn on [<the>] {name} [(in|at) <place>]"
        requires_context: {domain: light}
        metadata: {confirm: true}
        response: default
      - sentences:
          - "paint {floor} {color}"
          - "paint [<the>] {color} {area}"
""",
}

INTENTS = """\
On:
  supported: true
  domain: light
  description: Turns on
  slot_combinations:
    name_only:
      description: by name
      slots: [name]
      name_domains: {required: [light, cover]}
      name_domain_groups: {usual: [light, fan]}
      example: turn on lamp
    here:
      description: where the speaker is
      slots: [domain]
      context_area: true
      example: lights on
Off: {supported: true, domain: light, description: Turns off, slot_combinations: {}}
Later: {domain: light, description: not yet, slot_combinations: {default: {slots: []}}}
"""

NEW = {
    "sentences/en/_common.yaml": "language: en\nskip_words: [please]\n",
    "sentences/en/light_Off.yaml": "language: en\nintents: {Off: {data: [{sentences: [lights off]}]}}\n",
    "sentences/en/Off/name_only.yaml": "language: en\ndata: [{sentences: [not used yet]}]\n",
    "sentences/en/Later/default.yaml": "language: en\ndata: [{sentences: [later], response: default}]\n",
    "sentences/en/On/name_only.yaml": """\
language: en
data:
  - sentences: ["turn on [<the>] {name}"]
    name_domains: usual
    example: turn on the lamp
    response: default
  - sentences: ["open [<the>] {name}"]
    name_domains: [cover]
    response: cover
  - sentences: ["on {name}"]
    name_domains: [light]
    speech_to_phrase: true
    response: default
""",
    "sentences/en/On/here.yaml": """\
language: en
data:
  - sentences: ["lights to {level:brightness} [percent]"]
    inferred_domain: light
    speech_to_phrase: true
    response: lights_area
""",
    "lists/light.yaml": "lists:\n  level: {range: {from: 0, to: 100, type: percentage}}\n",
    "lists/en/light.yaml": "language: en\nlists:\n  color: {values: [{in: red, out: red}]}\n",
    "rules/en/common.yaml": "language: en\nexpansion_rules:\n  the: (the|my)\n",
    "intents.yaml": INTENTS,
}


def written(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def imported(sentences: Sentences, home: Home | None = HOME) -> dict[str, Any]:
    """The grammar, as it is read from its file."""
    read: dict[str, Any] = yaml.load(render(draft(sentences, home)), Loader=yaml.CSafeLoader)
    return read


def of_home_assistant(home: Home) -> dict[str, SlotList]:
    """The lists as Home Assistant's conversation agent makes them, but for what an alias gives."""

    def context(entity: Entity) -> dict[str, str]:
        return {
            "domain": entity.domain,
            **({"device_class": entity.device_class} if entity.device_class else {}),
        }

    names = [(n, e.name, context(e)) for e in home.entities for n in (e.name, *e.aliases)]
    return {
        "name": TextSlotList.from_tuples(names, allow_template=False),
        "area": TextSlotList.from_tuples([(n, a.name) for a in home.areas for n in (a.name, *a.aliases)]),
        "floor": TextSlotList.from_tuples([(n, f.name) for f in home.floors for n in (f.name, *f.aliases)]),
    }


def meaning(text: str, intents: Intents, lists: dict[str, SlotList] | None = None) -> object:
    """Intent and slots by hassil, asked as Home Assistant asks it, in the kitchen."""
    best = recognize_best(
        text,
        intents,
        slot_lists=lists,
        intent_context={"area": {"value": "Kitchen", "text": "Kitchen"}},
        language=intents.language,
        best_slot_name="name",
    )
    return best and (best.intent.name, {name: slot.value for name, slot in best.entities.items()})


@pytest.fixture(scope="module")
def english() -> Sentences:
    """The English sentences of the package, for tests that leave them as they are."""
    return package_sentences("en")


class TestPackage:
    """Sentences of the package home-assistant-intents."""

    def test_means_the_same_as_in_home_assistant(self, english: Sentences) -> None:
        """Every sentence, also those that mean nothing."""
        original = get_intents("en")
        assert original is not None
        quick = {"settings": {"filter_with_regex": False}}  # changes no answer, but takes a minute
        intents, lists = Intents.from_dict({**original, **quick}), of_home_assistant(HOME)
        theirs = {text: meaning(text, intents, lists) for text in SAID}
        ours = Intents.from_dict({**imported(english), **quick})
        assert {text: meaning(text, ours) for text in SAID} == theirs
        assert sum(value is not None for value in theirs.values()) >= 20

    def test_only_what_is_needed_is_in_it(self, english: Sentences) -> None:
        """Lists and rules that no sentence uses are left out, and everything that is used is there."""
        grammar = imported(english, None)
        text = str(grammar["intents"]) + str(grammar["expansion_rules"])
        assert grammar["lists"]
        for name in grammar["lists"]:
            assert f"{{{name}}}" in text or f"{{{name}:" in text
        for name in grammar["expansion_rules"]:
            assert f"<{name}>" in text
        assert "{name}" not in text

    def test_what_cannot_be_said_is_told(self, english: Sentences) -> None:
        """In the comment at the top, with the reason."""
        text = render(draft(english, HOME))
        header = text[: text.index("\nlanguage:")]
        assert "home-assistant-intents 20" in header
        assert "HassVacuumStart" in header
        assert "no vacuum" in header
        assert "HassVacuumReturnToBase" not in text[len(header) :]
        assert "# Study" in text

    def test_sentences_without_entities(self, english: Sentences, make_grammar: MakeGrammar) -> None:
        """Timers, time and date need no names, and are read by edgevoice."""
        names = ("HassCancelAllTimers", "HassGetCurrentDate", "HassStartTimer")
        grammar = draft(english, Home("", areas=(Place("Kitchen"),)), intents=names)
        with make_grammar(render(grammar)) as opened:
            (found,) = match.interpret(opened, "cancel all timers in the kitchen")
            assert (found.intent, found.slots) == ("HassCancelAllTimers", {"area": "Kitchen"})

    @pytest.mark.parametrize("language", ["de", "es", "fr", "it", "nl", "pt", "ru", "zh-CN"])
    def test_other_languages(self, language: str) -> None:
        """What is written can be read by hassil again."""
        grammar = imported(package_sentences(language))
        assert Intents.from_dict(grammar).language == language
        assert {"HassTurnOn", "HassTurnOff"} <= grammar["intents"].keys()

    def test_a_language_whose_number_words_nobody_knows(self) -> None:
        """Its numbers are understood in digits, as hassil does; otherwise edgevoice refused the file."""
        text = render(draft(package_sentences("gl"), HOME))
        ranges = [each["range"] for each in yaml.safe_load(text)["lists"].values() if "range" in each]
        assert ranges
        assert all(each["words"] is False for each in ranges)
        assert "in digits only" in text
        assert "in digits only" not in render(draft(package_sentences("nb"), HOME))

    def test_a_variant_of_a_language(self) -> None:
        """Has the sentences of its language, as in Home Assistant; upper and lower case do not matter."""
        assert package_sentences("en-GB").language == "en"
        assert package_sentences("PT_br").language == "pt-BR"
        with pytest.raises(UsageError, match=r"no language 'xx'; it has af, ar, .*zh-TW"):
            package_sentences("xx")

    def test_without_the_package(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Says what to install; a folder of sentences needs none."""
        monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
        with pytest.raises(UsageError, match=r"pip install 'edgevoice\[home-assistant\]'"):
            package_sentences("en")
        assert folder_sentences(written(tmp_path, OLD) / "en", "en").rules.keys() == {
            "the",
            "unused",
            "place",
        }

    def test_an_intent_that_is_not_there(self, english: Sentences) -> None:
        """Is refused, with those that are."""
        with pytest.raises(UsageError, match=r"no intent 'HassNo'; there are .*HassTurnOn"):
            draft(english, HOME, intents=("HassNo",))

    def test_two_thousand_entities_are_quick(self) -> None:
        """Nothing is expanded."""
        lamps = tuple(Entity(f"Lamp {i}", "light", area="Kitchen") for i in range(2000))
        start = time.perf_counter()
        render(draft(package_sentences("en"), Home("", lamps, HOME.areas)))
        assert time.perf_counter() - start < QUICK_S


class TestOldLayout:
    """Files with `intents:`."""

    def test_means_what_is_written(self, tmp_path: Path) -> None:
        """Context, fixed slots, rules with lists in them, skip words."""
        grammar = imported(folder_sentences(written(tmp_path, OLD) / "en", "en", complete=False))
        intents = Intents.from_dict(grammar)
        assert meaning("please turn on my desk lamp in the kitchen", intents) == (
            "On",
            {"name": "Desk lamp", "area": "Kitchen"},
        )
        assert meaning("turn on the garage door", intents) is None
        assert meaning("paint upstairs dark blue", intents) == (
            "On",
            {"floor": "First floor", "color": "blue"},
        )
        assert grammar["intents"]["On"]["data"][0]["metadata"] == {"confirm": True}
        assert "unused" not in str(grammar)

    def test_what_needs_a_floor_goes_where_there_is_none(self, tmp_path: Path) -> None:
        """Of alternatives the others stay, also inside of rules; what is optional is left out."""
        sentences = folder_sentences(written(tmp_path, OLD) / "en", "en", complete=False)
        flat = imported(sentences, Home("", HOME.entities, HOME.areas))
        assert flat["expansion_rules"] == {"the": "(the|my)", "place": "[<the>] ({area})"}
        assert [block["sentences"] for block in flat["intents"]["On"]["data"]] == [
            ["turn on [<the>] {name} [(in|at) <place>]"],
            ["paint [<the>] {color} {area}"],
        ]
        bare = draft(sentences, Home("", HOME.entities))
        assert bare.grammar["intents"]["On"]["data"] == [
            {
                "sentences": ["turn on [<the>] {name}"],
                "requires_context": {"domain": "light"},
                "metadata": {"confirm": True},
            }
        ]
        assert any("On  some: no areas, no floors" in line for line in bare.header)

    def test_free_text_that_has_no_end_is_left_out(self, tmp_path: Path, make_grammar: MakeGrammar) -> None:
        """Where edgevoice could not tell it from the words beside it; the other sentences stay."""
        text = """\
language: en
intents: {Say: {data: [{sentences: ["say {text}[s|-] please", "tell [<it> ]{text}", "<it>{text}"]}]}}
lists: {text: {wildcard: true}}
expansion_rules: {it: it}
"""
        sentences = folder_sentences(written(tmp_path, {"say.yaml": text}), "en", complete=False)
        written_out = draft(sentences, None)
        assert written_out.grammar["intents"]["Say"]["data"] == [{"sentences": ["tell [<it> ]{text}"]}]
        assert any("Say  some: free text that is no word of its own" in line for line in written_out.header)
        with make_grammar(render(written_out)) as opened:
            (found,) = match.interpret(opened, "tell it good night")
            assert found.slots == {"text": "good night"}

    def test_custom_sentences_use_the_rules_of_the_package(self, tmp_path: Path) -> None:
        """As in Home Assistant, where they are added to its own."""
        folder = tmp_path / "custom_sentences" / "en"
        text = 'language: en\nintents:\n  Party:\n    data:\n    - sentences: ["party <in> {area} {color}"]\n'
        written(folder, {"deep/party.yaml": text})
        intents = Intents.from_dict(imported(folder_sentences(tmp_path, "en")))
        assert list(intents.intents) == ["Party"]
        assert meaning("party in kitchen red", intents) == ("Party", {"area": "Kitchen", "color": "red"})
        with pytest.raises(GrammarError, match=r"party\.yaml:5: rule <in> is not defined"):
            imported(folder_sentences(tmp_path, "en", complete=False))
        both = package_sentences("en")
        both.add(folder_sentences(tmp_path, "en", complete=False))
        everything = Intents.from_dict(imported(both))
        assert meaning("party in kitchen red", everything) == ("Party", {"area": "Kitchen", "color": "red"})
        assert meaning("lock the front door", everything) is not None

    def test_values_of_a_list_join(self, tmp_path: Path) -> None:
        """A custom list of the same name adds its values, a rule replaces the other."""
        sentences = folder_sentences(written(tmp_path / "a", OLD) / "en", "en", complete=False)
        more = """\
language: en
intents: {Off: {data: [{sentences: ["<the> {color} off"]}]}}
lists: {color: {values: [green]}}
expansion_rules: {the: that}
"""
        folder = written(tmp_path / "b", {"more.yaml": more})
        sentences.add(folder_sentences(folder, "en", complete=False))
        intents = Intents.from_dict(imported(sentences))
        assert meaning("that green off", intents) == ("Off", {"color": "green"})
        assert meaning("that red off", intents) == ("Off", {"color": "red"})
        assert meaning("the red off", intents) is None

    # (what is wrong, what is replaced in light_On.yaml, by what, line of the error, words of its text)
    @pytest.mark.parametrize(
        ("old", "new", "line", "words"),
        [
            ("intents:", "intent:", 3, "unknown key 'intent'; did you mean 'intents'?"),
            ("data:", "datas:", 5, "unknown key 'datas'; did you mean 'data'?"),
            ("response:", "responce:", 9, "unknown key 'responce'; did you mean 'response'?"),
            ("metadata:", "name_domains:", 8, "unknown key 'name_domains'"),
            ("{domain: light}", "light", 7, "key: value"),
            ('"paint {floor} {color}"', '"paint {floor"', 11, "no sentence template"),
            ('"paint {floor} {color}"', "on", 11, "put on/off/yes/no in quotes"),
            ("{floor}", "{flor}", 11, "list {flor} is not defined"),
            ("<place>", "<places>", 6, "rule <places> is not defined"),
        ],
    )
    def test_refused_with_file_and_line(
        self, tmp_path: Path, old: str, new: str, line: int, words: str
    ) -> None:
        """Whatever is not known is named, never ignored."""
        changed = OLD["en/light_On.yaml"].replace(old, new, 1)
        folder = written(tmp_path, {**OLD, "en/light_On.yaml": changed}) / "en"
        with pytest.raises(GrammarError) as refused:
            imported(folder_sentences(folder, "en", complete=False))
        assert str(refused.value).startswith(f"{folder / 'light_On.yaml'}:{line}: ")
        assert words in str(refused.value)

    def test_rules_that_use_each_other_are_refused(self, tmp_path: Path) -> None:
        """With the way round."""
        common = OLD["en/_common.yaml"].replace('"(the|my)"', '"the <place>"')
        folder = written(tmp_path, {**OLD, "en/_common.yaml": common}) / "en"
        with pytest.raises(GrammarError, match=r"_common\.yaml:8: .*<the> -> <place> -> <the>"):
            imported(folder_sentences(folder, "en", complete=False))


class TestNewLayout:
    """A checkout with a file for each combination of slots."""

    def test_as_home_assistant_makes_its_package_of_it(self, tmp_path: Path) -> None:
        """Domains of names become context, an inferred domain a slot, the speaker's area context and slot."""
        grammar = imported(folder_sentences(written(tmp_path, NEW), "en"))
        assert grammar == {
            "language": "en",
            "skip_words": ["please"],
            "intents": {
                "Off": {"data": [{"sentences": ["lights off"]}]},
                "On": {
                    "data": [
                        {
                            "sentences": ["lights to {level:brightness} [percent]"],
                            "slots": {"domain": "light"},
                            "requires_context": {"area": {"slot": True}},
                        },
                        {
                            "sentences": ["turn on [<the>] {name}"],
                            "requires_context": {"domain": ["light", "fan"]},
                        },
                        {"sentences": ["open [<the>] {name}"], "requires_context": {"domain": ["cover"]}},
                    ]
                },
            },
            "expansion_rules": {"the": "(the|my)"},
            "lists": {
                "level": {"range": {"from": 0, "to": 100, "type": "percentage"}},
                "name": grammar["lists"]["name"],
            },
        }
        intents = Intents.from_dict(grammar)
        assert meaning("lights to 40", intents) == (
            "On",
            {"brightness": 40, "domain": "light", "area": "Kitchen"},
        )
        assert meaning("open the garage door", intents) == ("On", {"name": "Garage door"})
        assert meaning("open the desk lamp", intents) is None

    def test_tells_what_home_assistant_does_not_know_yet(self, tmp_path: Path) -> None:
        """And where the blocks come from."""
        text = render(draft(folder_sentences(written(tmp_path, NEW) / "sentences" / "en", "en"), HOME))
        assert "#   Later  all: Home Assistant does not know this intent yet" in text
        assert "      # name_only\n" in text
        assert f"the checkout {tmp_path}" in text

    @pytest.mark.parametrize(
        ("place", "old", "new", "words"),
        [
            ("sentences/en/On/name_only.yaml:5", "example", "exmaple", "did you mean 'example'?"),
            ("sentences/en/On/name_only.yaml:4", "usual", "strange", "no group of domains 'strange'"),
            ("sentences/en/On/name_only.yaml:3", "data:", "intents:", "unknown key 'intents'"),
            ("sentences/en/On/here.yaml:5", "true", "maybe", "must be true or false"),
            ("lists/light.yaml:2", "range", "ranges", "did you mean 'range'?"),
            ("lists/en/light.yaml:3", "lists:", "list:", "did you mean 'lists'?"),
            ("rules/en/common.yaml:3", "(the|my)", "(the|my", "no sentence template"),
        ],
    )
    def test_refused_with_file_and_line(
        self, tmp_path: Path, place: str, old: str, new: str, words: str
    ) -> None:
        """Whatever is not known is named, never ignored."""
        file = place.partition(":")[0]
        written(tmp_path, {**NEW, file: NEW[file].replace(old, new, 1)})
        with pytest.raises(GrammarError) as refused:
            imported(folder_sentences(tmp_path, "en"))
        assert str(refused.value).startswith(f"{tmp_path / place}: ")
        assert words in str(refused.value)

    def test_a_combination_that_nobody_knows(self, tmp_path: Path) -> None:
        """A file whose name is not in intents.yaml: nobody can say what it means."""
        written(tmp_path, {**NEW, "intents.yaml": INTENTS.replace("here:", "there:")})
        with pytest.raises(GrammarError, match=r"here\.yaml:3: intents\.yaml has no combination 'here'"):
            folder_sentences(tmp_path, "en")

    def test_needs_the_whole_checkout(self, tmp_path: Path) -> None:
        """Without intents.yaml nobody knows what its files mean."""
        written(tmp_path, NEW)
        (tmp_path / "intents.yaml").unlink()
        with pytest.raises(GrammarError, match="name a whole checkout"):
            folder_sentences(tmp_path, "en")
        with pytest.raises(UsageError, match="name a checkout"):
            folder_sentences(tmp_path / "rules" / "en", "en")


class TestFolders:
    """What is no folder of sentences."""

    def test_is_refused(self, tmp_path: Path) -> None:
        """A file, an empty folder, one file of the new layout alone."""
        written(tmp_path, {"a.txt": "", "new/name_only.yaml": NEW["sentences/en/On/name_only.yaml"]})
        with pytest.raises(UsageError, match="is no folder"):
            folder_sentences(tmp_path / "a.txt", "en")
        (tmp_path / "empty").mkdir()
        with pytest.raises(UsageError, match="no sentences in language 'en'"):
            folder_sentences(tmp_path / "empty", "en")
        with pytest.raises(GrammarError, match=r"name_only\.yaml:3: .*above 'sentences'"):
            folder_sentences(tmp_path / "new", "en")


class TestCommand:
    """`edgevoice grammar import`."""

    def test_writes_a_file_once(self, tmp_path: Path, edgevoice: Edgevoice) -> None:
        """And a second time only with --force."""
        entities, out = tmp_path / "entities.yaml", tmp_path / "grammar.yaml"
        entities.write_text("areas: [Kitchen]\nentities: [{name: Lamp, domain: light}]\n")
        command = ("grammar", "import", "home-assistant", "--entities", entities, "--out", out)
        done = edgevoice(*command)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
        assert "in: Lamp" in out.read_text()
        again = edgevoice(*command)
        assert again.returncode == 2
        assert b"--force" in again.stderr
        assert edgevoice(*command, "--force").returncode == 0

    def test_prints_without_out(self, tmp_path: Path, edgevoice: Edgevoice) -> None:
        """Rhasspy's and plain sentences likewise."""
        (tmp_path / "a.ini").write_text("[A]\nlamp (on){state}\n")
        (tmp_path / "a.txt").write_text("lamp on\n")
        for arguments in (
            ("rhasspy", tmp_path / "a.ini"),
            ("sentences", tmp_path / "a.txt", "--intent", "A"),
        ):
            done = edgevoice("grammar", "import", *arguments, "--language", "de")
            assert (done.returncode, done.stderr) == (0, b"")
            read = yaml.safe_load(done.stdout)
            assert (read["language"], list(read["intents"])) == ("de", ["A"])

    @pytest.mark.parametrize(
        "arguments",
        [
            ("--from-ha", "http://localhost"),
            ("--token-file", "token"),
            ("--entities", "a", "--from-ha", "http://localhost"),
            ("--language", "e/../n"),
            ("--source", "/nowhere"),
        ],
    )
    def test_arguments_that_make_no_sense(self, arguments: tuple[str, ...], edgevoice: Edgevoice) -> None:
        """Are a usage error."""
        done = edgevoice("grammar", "import", "home-assistant", *arguments)
        assert done.returncode == 2
        assert b"Traceback" not in done.stderr
