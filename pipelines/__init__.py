"""KFP graphs; no logic."""
