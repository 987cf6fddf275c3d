"""Several runs are told in one table."""

from __future__ import annotations

from story import EPOCH, Story
from summary import Summary, summarise, table_of_all


def a_run(*names: str, fault: str) -> Summary:
    story = Story()
    story.goes_well(*names)
    story.disturbed(fault)
    story.disturbed("stall", "*")
    story.acquires(EPOCH + 1)
    story.delivered(names[-1], program="worker-1", pid=2, epoch=EPOCH + 1)
    return summarise(story.evidence, drained_s=1.0)


def test_a_table_of_all_has_a_row_for_each_seed_and_one_for_all() -> None:
    runs = {
        3: {**a_run("n1", fault="kill_worker"), "on": "redis-6.2, alone", "violations": []},
        4: {**a_run("n1", "n2", fault="cut"), "on": "redis-7.0, alone", "violations": ["a", "b"]},
    }
    runs_table, kinds_table = table_of_all(runs).split("\n\n")
    assert runs_table.splitlines()[2:] == [
        "| 3 | redis-6.2, alone | 1 | 1 | 1 | 1 | 0 | 1 | 0 |",
        "| 4 | redis-7.0, alone | 1 | 2 | 2 | 2 | 0 | 1 | 2 |",
        "| all |  | 2 | 3 | 3 | 3 | 0 | 2 | 2 |",
    ]
    assert kinds_table.splitlines()[2:] == ["| cut | 1 |", "| kill_worker | 1 |"]
