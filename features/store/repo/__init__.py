"""Feast definitions only: entities, feature views and feature services."""
