"""What the checker knows of releases, and how an older release is found."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

import release
from evidence import Disturbance, Exit
from pushes import Pushes
from story import Story
from upgrade import Result, Step, Upgrade, told

OLD, NEW = "ingress-0/1", "ingress-1/2"


@pytest.fixture
def story() -> Story:
    story = Story()
    story.evidence.ledgers = {OLD: [(0, "old")], NEW: [(0, "new")]}
    return story


def twice(story: Story, first: str, second: str) -> None:
    """One notification, sent to two processes, and published by both."""
    story.sent("n1", to=first)
    story.sent("n1", to=second)
    for entry in ("n1", "n1 again"):
        story.appended("n1", entry=entry)
        story.delivered("n1")
        story.recorded(entry)


def test_each_ledger_takes_a_notification_once(story: Story) -> None:
    twice(story, OLD, NEW)
    assert story.broken == set()


def test_one_ledger_takes_it_no_second_time(story: Story) -> None:
    twice(story, NEW, NEW)
    assert story.broken == {"published_once"}


def test_a_third_time_has_no_ledger_that_would_explain_it(story: Story) -> None:
    twice(story, OLD, NEW)
    story.appended("n1", entry="n1 once more")
    story.delivered("n1")
    story.recorded("n1 once more")
    assert "published_once" in story.broken


@pytest.mark.parametrize(("since_ns", "is_fine"), [(0, True), (10**18, False)])
def test_what_was_spooled_may_be_judged_by_who_drains_it(
    story: Story, since_ns: int, is_fine: bool
) -> None:
    """But not what came before there was a spool to leave behind."""
    story.evidence.ledgers = {OLD: [(0, "old"), (since_ns, "new")]}
    twice(story, OLD, OLD)
    assert story.broken == (set() if is_fine else {"published_once"})


@pytest.mark.parametrize(
    ("to", "says_late", "is_right"),
    [(OLD, True, True), (OLD, False, False), (NEW, True, False), (NEW, False, True)],
)
def test_late_is_what_the_own_ledger_has_accepted(
    story: Story, to: str, says_late: bool, is_right: bool
) -> None:
    for name, status, late, its in (
        ("n1", "SUCCESSFUL", False, OLD),
        ("n2", "DELIVERED", says_late, to),
    ):
        story.sent(name, status=status, to=its)
        story.appended(name, status=status, late=late)
        story.delivered(name, late=late)
        story.recorded(name)
    assert story.broken == (set() if is_right else {"late_is_told"})


@pytest.mark.parametrize("says_late", [True, False])
def test_late_may_be_either_where_two_ledgers_may_have_judged(
    story: Story, says_late: bool
) -> None:
    story.sent("n1", status="SUCCESSFUL", to=OLD)
    story.appended("n1", status="SUCCESSFUL")
    story.delivered("n1")
    story.recorded("n1")
    for to in (OLD, NEW):
        story.sent("n2", status="DELIVERED", to=to)
    story.appended("n2", status="DELIVERED", late=says_late)
    story.delivered("n2", late=says_late)
    story.recorded("n2")
    assert story.broken == set()


@pytest.mark.parametrize(
    ("answer", "error", "is_fine"),
    [
        (200, "", True),
        (0, "ClientConnectorError", True),
        (0, "ServerDisconnectedError", False),
        (503, "", False),
    ],
)
def test_only_where_nobody_listened_may_there_be_no_200(
    story: Story, answer: int, error: str, is_fine: bool
) -> None:
    attempt = story.sent("n1", answer=answer, error=error)
    assert bool(Upgrade.not_answered([attempt])) != is_fine


def test_entries_of_pushes_are_held_against_another_rule(story: Story) -> None:
    assert Pushes.is_of_push(story.appended("n1", device="push-3"))
    assert not Pushes.is_of_push(story.appended("n2"))


def test_the_report_has_every_step_and_figure() -> None:
    result = Result(
        steps=[Step(text="one by one", answered=7, seconds=1.25)],
        figures={"published": 7},
        violations=[],
    )
    text = told(result, release.HERE)
    for line in ("| one by one | 7 | 1.2 |", "| published | 7 |", "| violations | 0 |"):
        assert line in text


# --- an older release


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A release in a folder: as much of it as is looked at."""
    (tmp_path / "bridge").mkdir()
    for name in ("pyproject.toml", "requirements.lock"):
        shutil.copy(release.ROOT / name, tmp_path)
    return tmp_path


def test_a_folder_whose_pins_are_ours_needs_no_environment(folder: Path) -> None:
    lock = folder / "requirements.lock"
    lock.write_text("\n".join(lock.read_text().splitlines()[:200]))  # some packages are newer
    found = release.older(str(folder))
    assert (found.python, found.tree) == (sys.executable, folder)
    assert found.environ == {"PYTHONPATH": str(folder)}
    assert release.HERE.environ == {}


def test_other_pins_need_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = folder / "requirements.lock"
    lock.write_text(lock.read_text() + "\nsomething==1.0 \\\n    --hash=sha256:00\n")
    monkeypatch.setattr(release, "_environment", lambda tree: f"{tree}/python")
    assert release.older(str(folder)).python == f"{folder}/python"


def test_neither_a_folder_nor_a_revision(tmp_path: Path) -> None:
    for named in (str(tmp_path), "no-such-revision"):
        with pytest.raises(ValueError, match="neither"):
            release.older(named)


def test_no_process_is_taken_for_another(story: Story) -> None:
    """A clean stop of either release explains no repetition."""
    story.goes_well("n1")
    story.evidence.disturbances.append(
        Disturbance(kind="term_worker", target="worker-0", began_ns=0, ended_ns=story.now_ns)
    )
    story.evidence.exits.append(
        Exit(program="worker-0", code=0, asked_ns=story.now_ns, ended_ns=story.now_ns)
    )
    story.delivered("n1")
    assert "repeats_are_explained" in story.broken
