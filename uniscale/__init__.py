"""Kernel of UniScale: configuration, contracts, hashing, artifacts, errors and the CLI; imports nothing else of ours."""

__version__ = "0.1.0"
