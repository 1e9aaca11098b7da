"""KFP graphs, and the two places that run them; what a step computes is elsewhere.

- The graphs: `training`, `monitoring`, `sweep`, `backfill`; what they share is in `place` (begin and end of a run) and
  `data_path` (logs to samples). `catalogue` knows them by name and compiles them, `picture` draws the compiled ones.
- On this machine: `local` runs one, `manifest` is its record, `console` what a person sees, `orphans` ends what a
  killed run leaves behind.
- On Kubeflow: `connection` to the API, `submit` to start runs and schedules, `follow` to see them to their end;
  `kubernetes` settles tasks by a profile, `images` builds what they run in.
"""
