"""Logs in, samples out: adapters, validation, feature tables, the Feast repository and ES3 on Spark."""
