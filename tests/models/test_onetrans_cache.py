"""A cached stage I scores as a full recomputation does, at every length of a growing history."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models.batches import to_batch
from models.onetrans_cache import OneTransCache
from tests.models.small import small_model, some_rows
from tests.models.test_onetrans import FORMS, built
from tests.sample_folder import SPEC
from uniscale.errors import ModelError

EVENTS = 24  # over twice the history's limit


@pytest.fixture(scope="module")
def user(samples):
    """One request, and a long history to go with it."""
    rows, vectors = some_rows(samples)
    pool = rows.take(np.argsort(-np.diff(rows.behaviour_offsets))[:5])
    one = pool.take(np.array([0]))
    chosen = slice(0, EVENTS)
    times = one.ts[0] - 3600 * np.arange(EVENTS, 0, -1)
    names = ("behaviour_ids", "behaviour_numbers", "behaviour_index")
    long = replace(
        one,
        behaviour_offsets=np.array([0, EVENTS]),
        behaviour_ts=times,
        **{name: getattr(pool, name)[chosen] for name in names},
    )
    assert len(long.behaviour_ids) == EVENTS
    return long, vectors


def events(user, start, stop, later_seconds=0):
    """A batch of the request with events start … stop of the history alone."""
    rows, vectors = user
    names = ("behaviour_ids", "behaviour_numbers", "behaviour_index", "behaviour_ts")
    part = {name: getattr(rows, name)[start:stop] for name in names}
    return to_batch(
        replace(rows, ts=rows.ts + later_seconds, behaviour_offsets=np.array([0, stop - start]), **part), vectors
    )


def grown(cache, user, old, new):
    """The state of a history of `old` events, extended to `new`."""
    _, state = cache.score(events(user, 0, old))
    return cache.score(events(user, 0, new), state, new - old)[1]


@pytest.mark.parametrize("fusion", ["timestamp_aware", "timestamp_agnostic"])
@pytest.mark.parametrize("tokenizer", ["auto_split", "group_wise"])
@pytest.mark.parametrize(("name", "half"), [*((form, False) for form in FORMS), ("onetrans", True)])
def test_extending_equals_recomputing_at_every_length(name, tokenizer, fusion, half, user):
    """Kept in float16 a state costs that rounding, against the model; against a state made at once, its last bit."""
    model = built(name, f"tokenizer={tokenizer}", f"fusion={fusion}")
    cache, close = OneTransCache(model, half), {"rtol": 1e-5, "atol": 1e-5}
    rounded = {"rtol": 2e-3, "atol": 2e-3} if half else close
    (_, state), length = cache.score(events(user, 0, 0)), 0
    for step in (0, 1, 1, 2, 1, 3, 1, 1, 1, 4, 1, 8):
        length += step
        whole = events(user, 0, length, later_seconds=999)  # asked later than the state was made
        scores, state = cache.score(whole, state, step)
        torch.testing.assert_close(scores, model.score(whole), **rounded)
        at_once, fresh = cache.score(whole)
        torch.testing.assert_close(scores, at_once, **({"rtol": 3e-4, "atol": 3e-4} if half else close))
        for mine, theirs in zip(state.blocks, fresh.blocks, strict=True):
            torch.testing.assert_close(mine.output, theirs.output, **rounded)
            assert mine.end - mine.start == theirs.end - theirs.start == mine.k.shape[2]
    assert length == EVENTS


def test_a_state_is_not_changed_by_extending_it(user):
    cache = OneTransCache(built("onetrans"))
    before, state = cache.score(events(user, 0, 5))
    cache.score(events(user, 0, 9), state, 4)
    assert torch.equal(cache.score(events(user, 0, 5), state)[0], before)


def test_a_state_scores_any_candidates_of_the_user(user):
    model = built("onetrans", "tokenizer=group_wise")
    cache, batch = OneTransCache(model), events(user, 0, 7)
    _, state = cache.score(batch)
    rows, vectors = user
    keep = np.arange(rows.candidates) % 2 == 0
    some = events((rows.keep(keep), vectors), 0, 7)
    torch.testing.assert_close(cache.score(some, state)[0], model.score(batch)[torch.from_numpy(keep)])


def test_a_state_knows_its_size(user):
    # L⁽ⁿ⁻¹⁾ is (10, 10, 8) and L⁽ⁿ⁾ (10, 8, 4): keys, values, outputs and events of 10, and a mean
    width = 4 * built("onetrans").config.onetrans.dim
    vectors = 10 + 2 * (10 + 10 + 8) + (10 + 8 + 4)
    sizes = [grown(OneTransCache(built("onetrans"), half), user, 9, 10).size_bytes for half in (False, True)]
    assert sizes == [(vectors + 1) * width + 80, vectors * width // 2 + width + 80]  # 80: which sequence, int64


def flops_of(function, *given):
    with FlopCounterMode(display=False) as counter:
        function(*given)
    return counter.get_total_flops()


def test_new_behaviours_cost_by_their_number_until_a_window_slides(user):
    # L⁽ⁿ⁾ is (10, 8, 4): the third block's keys start to move with the ninth event, the second's with the eleventh
    cache = OneTransCache(built("onetrans"))

    def computed(old, new):
        """Outputs that each block computes when a history grows from `old` events to `new`."""
        found = []
        hooks = [
            block.ffn.register_forward_hook(lambda _, given, out: found.append(out.shape[1]))
            for block in cache.network.stack
        ]
        _, state = cache.score(events(user, 0, old))
        found.clear()
        cache.score(events(user, 0, new), state, new - old)
        for hook in hooks:
            hook.remove()
        return found[: len(cache.network.stack)]  # stage II comes after

    assert computed(4, 5) == [1, 1, 1]
    assert computed(4, 6) == [2, 2, 2]
    assert computed(8, 9) == [1, 1, 4]  # the third block lost its oldest key
    assert computed(9, 10) == [1, 1, 4]
    assert computed(10, 11) == [10, 8, 4]  # the history itself slides
    whole, (_, state) = events(user, 0, 6), cache.score(events(user, 0, 5))
    alone = flops_of(cache.score, whole, cache.score(whole)[1])  # stage II, which every request costs
    assert flops_of(cache.score, whole, state, 1) - alone < 0.3 * (flops_of(cache.score, whole) - alone)


def test_a_full_history_keeps_its_first_keys(user):
    cache = OneTransCache(built("onetrans"))
    _, state = cache.score(events(user, 0, SPEC.max_behaviours))
    _, after = cache.score(events(user, 0, SPEC.max_behaviours + 1), state, 1)
    assert torch.equal(after.blocks[0].k[:, :, :-1], state.blocks[0].k[:, :, 1:])
    assert after.blocks[0].start == 1 and after.first == 1


def test_what_cannot_be_cached_is_refused(user, samples):
    with pytest.raises(ModelError, match="'hhsft' has no stage I to keep"):
        OneTransCache(small_model("hhsft"))
    with pytest.raises(ModelError, match="causal = false lets behaviours read candidates"):
        OneTransCache(built("onetrans", "causal=false"))
    rows, vectors = some_rows(samples)
    with pytest.raises(ModelError, match="one request at a time, the batch has 2"):
        OneTransCache(built("onetrans")).score(to_batch(rows.take(np.arange(2)), vectors))
