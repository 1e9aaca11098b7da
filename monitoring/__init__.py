"""Drift, online experiments and the pages people read."""
