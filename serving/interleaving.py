"""Interleaved answers: one list that two variants draft, each item credited to the variant that drafted it.

The draft is `uniscale.interleaving`'s, over all candidates: both rankings hold the same ones, those without a score
last, so neither runs out. An item's score is that of its own team, so scores need not fall along the list.
"""

from collections.abc import Mapping

import numpy as np

from serving.engine import Ranking
from uniscale.interleaving import team_draft


def draft(rankings: Mapping[str, Ranking], length: int | None, salt: str, request_id: str) -> Ranking:
    """The list of two variants, the first being the control, each item with its score and team.

    Args:
        rankings: variant -> its ranking of the same candidates.
        length: items to answer; all where None.
        salt, request_id: of the coins, so that the list can be made again.
    """
    (control, treatment), named = rankings.values(), list(rankings)
    whole = len(control.item_ids)
    items, teams = team_draft(control.item_ids, treatment.item_ids, length or whole, salt, request_id)
    scores = [dict(zip(each.item_ids, each.scores, strict=True)) for each in (control, treatment)]
    return Ranking(
        item_ids=items,
        scores=np.array([scores[team][item] for item, team in zip(items, teams, strict=True)], np.float32),
        unknown=control.unknown,
        features_hash=control.features_hash,
        teams=[named[team] for team in teams],
    )
