from tests.models.conftest import one_thread, samples

__all__ = ["one_thread", "samples"]
