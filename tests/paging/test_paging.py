"""Every movement of small lists in every dialect: what is called complete is (SPEC 4, the promise; HOLE gg).

`python -m tests.paging.prove_paging` plays all of it, here is a fixed sample; and each protection that is taken away lets a
record be lost that the proof finds.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from tests.paging.dialects import Dialect
from tests.paging.exploring import THREE, UNKNOWN_ORDER, UNSETTLED, Figures
from tests.paging.movements import Order
from tests.paging.plan import NOTHING, SAMPLE, Part, requests_documented
from tests.paging.protections import PROTECTIONS, List, Protection


def _played(part: Part) -> Figures:
    total = Figures()
    for *_, figures in part.plays():
        total.add(figures)
    return total


@pytest.mark.parametrize("part", SAMPLE, ids=lambda part: part.name)
def test_what_is_called_complete_is(part: Part) -> None:
    """SPEC 4, HOLE gg; what is excepted in the reference is played too, and counted by its name."""
    figures = _played(part)
    assert [str(loss) for loss in figures.losses] == []
    assert figures.ends.total() == figures.cases
    assert figures.ends["complete"] > 0


def test_what_does_not_move_is_complete_and_costs_no_more_than_documented() -> None:
    """SPEC 4: no false alarm, and a bookmark is followed without a further request."""
    for dialect, size, length, figures in replace(NOTHING, every=29).plays():
        case = f"{length} records, {size} a page, {dialect.name}"
        assert figures.ends == Counter({"complete": 1}), case
        assert figures.requests <= requests_documented(dialect, length, size), case


@pytest.mark.parametrize("protection", PROTECTIONS, ids=lambda protection: protection.name)
def test_a_protection_taken_away_loses_a_record(monkeypatch: pytest.MonkeyPatch, protection: Protection) -> None:
    """The proof has teeth: with the protection nothing is lost in the same cases."""
    protection.beforehand(monkeypatch)
    assert protection.where.played().losses == []
    protection.take_away(monkeypatch)
    assert protection.where.played(until_lost=True).losses != []


@pytest.mark.parametrize(
    ("exception", "where"),
    [
        (THREE, List(Dialect("cursor", "more"), 1, (0, 1, 2), 3)),
        (UNKNOWN_ORDER, List(Dialect("page", "total", Order.OTHER, cursor=False), 2, (0, 1, 2), 2)),
        (UNKNOWN_ORDER, List(Dialect("offset", "total", Order.OTHER, param="offset", cursor=False), 2, (0, 1, 2), 2)),
        (UNSETTLED, List(Dialect("page", "total", Order.OTHER, cursor=False, shuffles=True), 2, (0, 0, 0, 0), 0)),
    ],
    ids=lambda given: given if isinstance(given, str) else given.dialect.pager,
)
def test_what_is_not_proven_is_documented_and_no_more(exception: str, where: List) -> None:
    """The reference names it ("What this does not prove"); with one movement fewer nothing is lost."""
    figures = where.played(until_lost=True)
    assert figures.losses == []
    assert set(figures.exceptions) == {exception}
    if where.movements:
        assert not replace(where, movements=where.movements - 1).played().exceptions
