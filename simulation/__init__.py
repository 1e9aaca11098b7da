"""A marketplace with known truth: it writes logs, and its users answer a live ranker."""
