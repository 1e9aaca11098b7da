"""The Feast feature store: definitions, point-in-time retrieval, the online store."""
