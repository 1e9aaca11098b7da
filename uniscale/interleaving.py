"""Team-draft interleaving: one list from two rankings of a request, each item credited to the ranking that drafted it.

In every round both rankings draft their best item that is not yet in the list; a coin says which drafts first. So at
each position both are equally likely to have drafted, whatever the rankings, and clicks that do not look at the items
favour neither. Source: Radlinski, Kurup and Joachims, How Does Clickthrough Data Reflect Retrieval Quality? (CIKM
2008). The coin is a hash of salt, request and round, so a list can be made again from its two rankings.
"""

from collections.abc import Sequence

from uniscale.hashing import unit_interval


def team_draft(
    control: Sequence[str], treatment: Sequence[str], length: int, salt: str, request_id: str
) -> tuple[list[str], list[bool]]:
    """The interleaved list, and for each item whether the treatment drafted it.

    It has `length` items, or as many as the shorter ranking: up to there neither can run out of items to draft.
    """
    items: list[str] = []
    teams: list[bool] = []
    drafted: set[str] = set()
    left = (iter(control), iter(treatment))
    length = min(length, len(control), len(treatment))
    while len(items) < length:
        first = unit_interval(f"{salt}:{request_id}:{len(items) // 2}") < 0.5
        for team in (first, not first)[: length - len(items)]:
            items.append(next(item for item in left[team] if item not in drafted))
            drafted.add(items[-1])
            teams.append(team)
    return items, teams
