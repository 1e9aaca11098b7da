"""The Feast feature store: definitions, point-in-time retrieval, the online store."""

import typeguard

# Feast decorates its classes with run-time type checks, and compiling them is more than half of its import, which five
# processes of a run pay. typeguard's own switch is `python -O`, which would strip the asserts of the whole process.
_typechecked = typeguard.typechecked
typeguard.typechecked = lambda target: target  # type: ignore[assignment]
import feast  # noqa: E402, F401

typeguard.typechecked = _typechecked
