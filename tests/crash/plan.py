"""The plan of a thousand kills: every statement and signal once per form, the rest at random instants from a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence

from tests.crash.harness import Cast, Form
from tests.crash.kills import Kill, Kind
from tests.crash.points import AFTER, BEFORE, SENT, SIDES, SIGNAL, Death

Trace = Sequence[tuple[str, str]]
"""Points (side, name) in the order in which a calm process passed them."""

KILLS_PER_STORY = 5
ROUND_SECONDS = 0.35
"""About how long a calm round takes: random instants fall inside it."""


def statement_deaths(trace: Trace, *, without: Trace = ()) -> list[Death]:
    """Return a death before, during and after each statement of ``trace`` that is not in ``without``.

    Each COMMIT up to the last run's end counts as one of its own.
    """
    known = {name for _, name in without}
    ends = [number for number, point in enumerate(trace) if point == (SIGNAL, "run.ended")]
    deaths: list[Death] = []
    times: dict[str, int] = {}
    for number, (side, name) in enumerate(trace):
        if side != BEFORE or name in known:
            continue
        times[name] = times.get(name, 0) + 1
        if times[name] == 1 or (name == "COMMIT;" and number < ends[-1]):
            deaths += [Death(each, name, times[name]) for each in SIDES]
    return deaths


def signal_deaths(trace: Trace, most: int = 4) -> list[Death]:
    """Return a death at each signal of ``trace``, up to the ``most``-th time it was passed."""
    names = [name for side, name in trace if side == SIGNAL]
    return [
        Death(SIGNAL, name, nth) for name in dict.fromkeys(names) for nth in range(1, min(most, names.count(name)) + 1)
    ]


def at_points(form: Form, first: Trace, later: Trace) -> list[Kill]:
    """Return a kill at every point that a calm process passes: those of its beginning and first round, and of a later one."""
    fresh = statement_deaths(first, without=later) + signal_deaths(first, most=1)
    warm = statement_deaths(later) + signal_deaths(later)
    return [_kill(form, death, fresh=True) for death in fresh] + [_kill(form, death, fresh=False) for death in warm]


def _kill(form: Form, death: Death, *, fresh: bool) -> Kill:
    return Kill(Kind.SIGNAL if death.side == SIGNAL else Kind.STATEMENT, form, death=death, fresh=fresh)


def at_random(form: Form, chance: random.Random) -> Kill:
    """Return a kill of a random kind at a random instant; one in three kills the replacement too, in mid-recovery."""
    kind = chance.choices([Kind.INSTANT, Kind.SOURCE, Kind.BACKEND, Kind.FREEZE], [70, 12, 10, 8])[0]
    cast = Cast.TWO if kind is Kind.FREEZE else chance.choice(list(Cast))
    again = None
    if kind is Kind.INSTANT and chance.random() < 1 / 3:
        again = Death(chance.choice([BEFORE, SENT, AFTER]), "", chance.randint(1, 70))
    return Kill(
        kind, form, cast, chance.randrange(len(cast.roles)), after=chance.uniform(0, ROUND_SECONDS), again=again
    )


def stories(kills: Sequence[Kill]) -> list[list[Kill]]:
    """Return ``kills`` as stories to play in one world each: of one form and cast, a fresh one only at the beginning."""
    told: list[list[Kill]] = []
    for form, cast in sorted({(kill.form, kill.cast) for kill in kills}):
        ours = [kill for kill in kills if (kill.form, kill.cast) == (form, cast)]
        fresh = [kill for kill in ours if kill.fresh]
        warm = [kill for kill in ours if not kill.fresh]
        share = -(-len(warm) // max(len(fresh), -(-len(warm) // KILLS_PER_STORY), 1))
        parts = [warm[at : at + share] for at in range(0, len(warm), share)] if warm else []
        parts += [[] for _ in range(len(fresh) - len(parts))]
        heads = [[kill] for kill in fresh] + [[] for _ in range(len(parts) - len(fresh))]
        told += [head + part for head, part in zip(heads, parts, strict=True)]
    return told


def plan(traces: Mapping[Form, tuple[Trace, Trace]], seed: int, total: int) -> list[list[Kill]]:
    """Return the stories of at least ``total`` kills, in an order that mixes them; the same seed gives the same plan."""
    chance = random.Random(seed)
    kills = [kill for form, (first, later) in traces.items() for kill in at_points(form, first, later)]
    kills += [at_random(chance.choice(list(Form)), chance) for _ in range(total - len(kills))]
    told = stories(kills)
    chance.shuffle(told)
    return told


def more(kills: int, seed: int) -> Iterator[list[Kill]]:
    """Yield further random stories of at least ``kills`` kills in all."""
    chance = random.Random(seed)
    yield from stories([at_random(chance.choice(list(Form)), chance) for _ in range(kills)])
