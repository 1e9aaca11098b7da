from tests.models.conftest import samples

__all__ = ["samples"]
