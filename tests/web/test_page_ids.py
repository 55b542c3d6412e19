"""The page's scripts ask for elements by id; each is on the page, and none has the name of another. No browser."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from paintback.web.app import STATIC
from paintback.web.schemas import entries

PAGE = re.findall(r'\bid="([^"]+)"', (STATIC / "index.html").read_text(encoding="utf-8"))
SCRIPTS = {path.name: path.read_text(encoding="utf-8") for path in sorted(STATIC.glob("*.js"))}
ENTRIES = {one.name for one in entries()}
OWN = re.compile(r"entry-|field-|day-")  # what the scripts make themselves


def test_each_element_that_a_script_asks_for_is_on_the_page() -> None:
    asked = {found: name for name, text in SCRIPTS.items() for found in re.findall(r'\$\("([^"]+)"\)', text)}
    assert len(asked) > 60
    missing = {f"{name}: {found}" for found, name in asked.items() if found not in PAGE}
    assert not missing, missing


def test_each_entry_that_a_script_names_is_of_a_job() -> None:
    named = {found for text in SCRIPTS.values() for found in re.findall(r'entryId\("([^"]+)"\)', text)}
    assert named and named <= ENTRIES, named - ENTRIES


def test_other_ids_that_are_made_are_not_those_of_the_page() -> None:
    """A job's entry was called `grid` once, as the results' grid: the form asked the wrong one, and nothing worked."""
    assert not [name for name, count in Counter(PAGE).items() if count > 1]
    assert not [name for name in PAGE if OWN.match(name)]
    made = {found for text in SCRIPTS.values() for found in re.findall(r"\bid(?: =|:) `([^`]+)`", text)}
    made |= {found for text in SCRIPTS.values() for found in re.findall(r"entryId = \(name\) => `([^`]+)`", text)}
    assert made and all(OWN.match(found) for found in made), made


@pytest.mark.parametrize("attribute", ["for", "aria-controls", "aria-labelledby", "aria-describedby"])
def test_what_elements_say_of_each_other_is_there(attribute: str) -> None:
    text = (STATIC / "index.html").read_text(encoding="utf-8")
    named = [one for found in re.findall(rf'\b{attribute}="([^"]+)"', text) for one in found.split()]
    assert set(named) <= set(PAGE), set(named) - set(PAGE)
