"""Measurements that back what the documentation says; each runs as `python -m benchmarks.<name>`."""
