"""On generated scores: a model that wins overall and is worse for one cohort is held, and by that cohort's gate."""

import numpy as np

from models.gate import judge
from models.judged import Judged, Measures, Slice, compare, measure
from uniscale.config import load_config

USERS, PER_USER = 300, 40
RULES = load_config().gate.model_copy(
    update={
        "floors": {},
        "ceilings": {},
        "non_inferiority": {"click.auc": 0.01, "click.gauc": 0.01},
        "slices": load_config().gate.slices.model_copy(update={"by": ["user_cohort"]}),
    }
)


def decision(new_users_noise):
    """The candidate sees appeal with less noise than the champion, but for new users with `new_users_noise`."""
    rng = np.random.default_rng(3)
    user = np.repeat(np.arange(USERS), PER_USER)
    new = user < USERS // 8
    appeal = rng.normal(size=len(user))
    labels = (rng.random(len(user)) < 1 / (1 + np.exp(1.5 - appeal))).astype(np.int8)
    noise = np.where(new, new_users_noise, 0.2)
    scores = {
        "candidate": {"click": 1 / (1 + np.exp(-appeal - noise * rng.normal(size=len(user))))},
        "champion": {"click": 1 / (1 + np.exp(-appeal - 1.2 * rng.normal(size=len(user))))},
    }
    request = np.arange(len(user)) // 10
    judged = Judged(
        request=request,
        user=user,
        group=user,
        day=np.zeros(len(user), np.int64),
        labels={"click": labels},
        attributed={"click": labels},
        scores=scores,
    )
    found = Measures()
    measure(judged, found)
    parts = [Slice("user_cohort", "new", new), Slice("user_cohort", "known", ~new)]
    slices = compare(judged, parts, 200, 0.95, 7, found)
    evaluation = {
        "candidate": {"name": "hhsft"},
        "champion": {"name": "dlrm_mlp"},
        "confidence": 0.95,
        "measures": found.values,
        "slices": slices,
        "reasons": found.reasons,
    }
    return judge(RULES, evaluation)


def test_a_model_that_is_better_for_everybody_is_promoted():
    assert decision(new_users_noise=0.2)["verdict"] == "promote"


def test_a_model_that_wins_overall_and_loses_one_cohort_is_held_by_it():
    held = decision(new_users_noise=2.5)
    assert held["failed"] == ["slice:user_cohort=new"]
    passed = {gate["name"] for gate in held["gates"] if gate["verdict"] == "pass"}
    assert {"superiority:click.gauc", "non_inferiority:click.auc", "slice:user_cohort=known"} <= passed
