"""The Chinese pages keep in step with the English ones: code, headings, tables, commands, links."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [("README.md", "README.zh-CN.md"), ("docs/receivers.md", "docs/receivers.zh-CN.md")]
BLOCK = re.compile(r"^ *```.*?^ *```$", re.DOTALL | re.MULTILINE)
# What only a translation has: the way to the other language.
OTHER_LANGUAGE = re.compile(r"\(([\w/]*README|[\w/]*receivers)(\.zh-CN)?\.md\)")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def prose(text: str) -> str:
    return BLOCK.sub("", text)


def shape(text: str) -> list[str]:
    """Headings by their level, and tables by their columns, in order."""
    found = []
    for line in prose(text).splitlines():
        if line.startswith("#"):
            found.append(line.partition(" ")[0])
        elif line.startswith("|"):
            found.append(f"row of {line.count(' | ') + 1}")
        elif line.startswith("- "):
            found.append("item")
        elif line.startswith("[^"):
            found.append(line.partition(":")[0])
    return found


def commands(text: str) -> set[str]:
    """What stands in backticks: names and commands are not translated."""
    return set(re.findall(r"`([^`]+)`", prose(text).replace("\n", " ")))


def links(text: str) -> list[str]:
    found = re.findall(r"\]\(([^)]+)\)", prose(text))
    return sorted(link for link in found if not OTHER_LANGUAGE.fullmatch(f"({link})"))


@pytest.mark.parametrize(("english", "chinese"), PAGES)
def test_code_is_the_same(english: str, chinese: str) -> None:
    assert BLOCK.findall(read(chinese)) == BLOCK.findall(read(english))


@pytest.mark.parametrize(("english", "chinese"), PAGES)
def test_headings_tables_and_lists_are_the_same(english: str, chinese: str) -> None:
    assert shape(read(chinese)) == shape(read(english))


@pytest.mark.parametrize(("english", "chinese"), PAGES)
def test_names_and_commands_are_the_same(english: str, chinese: str) -> None:
    ours, theirs = commands(read(english)), commands(read(chinese))
    pages = {name for pair in PAGES for name in pair}
    assert {name for name in theirs - ours if name not in pages} == set()
    assert {name for name in ours - theirs if name not in pages} == set()


@pytest.mark.parametrize(("english", "chinese"), PAGES)
def test_links_are_the_same_and_each_leads_to_the_other(english: str, chinese: str) -> None:
    assert links(read(chinese)) == links(read(english))
    assert f"[简体中文]({Path(chinese).name})" in read(english)
    assert f"[English]({Path(english).name})" in read(chinese)


@pytest.mark.parametrize("chinese", [chinese for _, chinese in PAGES])
def test_numbers_of_the_text_are_those_of_the_original(chinese: str) -> None:
    english = {translated: original for original, translated in PAGES}[chinese]

    def numbers(text: str) -> set[str]:
        return set(re.findall(r"\d+", prose(text)))

    assert numbers(read(chinese)) - numbers(read(english)) == set()
