"""The error tree: every message says what was wrong, the value received, and the remedy."""


class UniscaleError(ValueError):
    """Anything a user can cause and mend."""


class ConfigError(UniscaleError):
    """A configuration key is unknown, missing, or out of range; the message names its dotted path."""


class DataError(UniscaleError):
    """Logs, samples or features break their contract."""


class ModelError(UniscaleError):
    """A model name, checkpoint or schema cannot be used."""


class RegistryError(UniscaleError):
    """A registry operation was refused (no passing gate, no previous champion, a lost race)."""


class ServingError(UniscaleError):
    """The service could not be built, started or reached."""


class MissingToolError(UniscaleError):
    """Something outside Python (Java, uv) is missing; the message says how to get it."""
