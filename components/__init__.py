"""One thin, containerised pipeline step a file; no logic."""
