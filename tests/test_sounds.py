"""What sounds alike: a rule of thumb, shown by words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevoice import sounds


def alike(*texts: str, language: str = "en") -> set[frozenset[str]]:
    return {frozenset((one, other)) for _, one, other in sounds.alike(texts, language)}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("knight", "night"),
        ("right", "write"),
        ("Meier", "meyer"),
        ("phone", "fone"),
        ("lamp 4", "lamp four"),
        ("some one", "someone"),
        ("café", "cafe"),
    ],
)
def test_written_differently_and_said_alike(one: str, other: str) -> None:
    """Costs nothing."""
    assert sounds.cost(sounds.sounds(one, "en"), sounds.sounds(other, "en")) == 0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("light", "lights"),
        ("anna", "hanna"),
        ("lamp", "lump"),
        ("fan", "van"),
        ("bedroom", "bathroom"),
        ("lamp 4", "lamp for"),
    ],
)
def test_alike(one: str, other: str) -> None:
    """Pairs that are easily confused."""
    assert alike(one, other, "window") == {frozenset((one, other))}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("kitchen", "garden"),
        ("on", "off"),
        ("lamp 1", "lamp 2"),
        ("radio", "television"),
        ("a", "b"),
        ("", "x"),
    ],
)
def test_not_alike(one: str, other: str) -> None:
    """Pairs that are not."""
    assert alike(one, other) == set()


def test_numbers_are_said_in_the_language() -> None:
    """Where they have no words, digits are like nothing."""
    for language, is_alike in (("en", True), ("de", False), ("xx", False)):
        assert bool(alike("room 8", "room eight", language=language)) == is_alike
    assert alike("room 8", "room acht", language="de")


texts = st.lists(st.text("abdeghknmst ", max_size=9), max_size=12)


@given(texts=texts)
def test_pairs_are_found_without_comparing_all(texts: list[str]) -> None:
    """Exactly those whose sounds differ little, each once."""
    found = [frozenset((one, other)) for _, one, other in sounds.alike(texts, "en")]
    assert len(found) == len(set(found))
    rows = {text: sounds.sounds(text, "en") for text in texts}
    wanted = {
        frozenset((one, other))
        for one in rows
        for other in rows
        if one != other and rows[one] and rows[other]
        and sounds.cost(rows[one], rows[other])
        <= min(sounds.MAX_COST, sounds.MAX_SHARE * max(len(rows[one]), len(rows[other])))
    }  # fmt: skip
    assert set(found) == wanted


@given(
    one=st.text("abdehst", max_size=7),
    other=st.text("abdehst", max_size=7),
    third=st.text("abdehst", max_size=7),
)
def test_cost_is_a_distance(one: str, other: str, third: str) -> None:
    """Nothing to itself, the same both ways, and no detour is shorter."""
    assert sounds.cost(one, one) == 0
    assert sounds.cost(one, other) == sounds.cost(other, one)
    assert sounds.cost(one, third) <= sounds.cost(one, other) + sounds.cost(other, third)


def test_thousands_of_names_take_no_time() -> None:
    """Names made alike are not compared each with each."""
    names = [f"gadget {i} of floor {i % 7}" for i in range(2000)]
    assert alike(*names)
