"""Kernel of UniScale: configuration, contracts, hashing, artifacts, errors and the CLI."""

__version__ = "0.1.0"
