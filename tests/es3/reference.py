"""Hierarchical attribution in plain Python, event by event and by brute force, straight from the rules."""

from uniscale.samples import LabelSource, Sampling

CLICK_WINDOW, CONVERSION_WINDOW = 100, 1000  # minutes


def land(samples, events):
    """Where each event lands: {event: (request, item, source)}.

    Args:
        samples: (request, user, item, minute, sampling).
        events: (event, task, user, item, minute, own, request or None).
    """
    landings, clicks = {}, []  # clicks: (minute of the click, sample)
    for event, task, user, item, minute, own, request in events:
        if task == "click" and own:
            for sample in samples:
                named = sample[:3] == (request, user, item) and sample[4] == Sampling.EXPOSED
                if named and 0 <= minute - sample[3] <= CLICK_WINDOW:
                    landings[event] = (request, item, LabelSource.IN_DOMAIN)
                    clicks.append((minute, sample))
    for event, task, user, item, minute, own, _ in events:
        if task == "click" and own:
            continue
        window = CLICK_WINDOW if task == "click" else CONVERSION_WINDOW
        past = [s for s in samples if s[1:3] == (user, item) and 0 <= minute - s[3] <= window]
        exposed = [s for s in past if s[4] == Sampling.EXPOSED]
        unexposed = [s for s in past if s[4] == Sampling.UNEXPOSED]
        levels = [(exposed, LabelSource.EXPOSED), (unexposed, LabelSource.UNEXPOSED)]
        if task == "conversion":
            before = [(when, s) for when, s in clicks if s[1:3] == (user, item) and when <= minute]
            if own:  # the user's last click and no other
                last = max(before, key=lambda click: (click[0], click[1][3], click[1][0]), default=None)
                levels = [([last[1]] if last and last[1] in past else [], LabelSource.IN_DOMAIN)]
            else:
                clicked = {s for _, s in before}
                unclicked = [s for s in exposed if s not in clicked]
                levels = [
                    ([s for s in past if s in clicked], LabelSource.CLICKED),
                    (unclicked, LabelSource.EXPOSED),
                    (unexposed, LabelSource.UNEXPOSED),
                ]
        for found, source in levels:
            if found:
                sample = max(found, key=lambda s: (s[3], s[0]))
                landings[event] = (sample[0], item, source)
                break
    return landings
