"""What a run needs is missed at its beginning: a secret by name, a folder by its path."""

import pytest

from uniscale.errors import ConfigError
from uniscale.preflight import check, required_variables

REQUIRED = required_variables({"store": {"access": "ACCESS", "secret": "SECRET"}})


def test_what_is_there_passes_and_leaves_nothing_behind(tmp_path) -> None:
    check(REQUIRED, str(tmp_path / "state"), {"ACCESS": "a", "SECRET": "b"})
    assert list((tmp_path / "state").iterdir()) == []
    check("{}", "", {})


def test_a_missing_or_empty_variable_is_named_with_its_secret() -> None:
    with pytest.raises(ConfigError, match=r"^not set: SECRET \(key secret of secret store\);"):
        check(REQUIRED, "", {"ACCESS": "a", "SECRET": ""})


def test_a_folder_that_takes_no_file_is_named(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="takes no file"):
        check("{}", str(tmp_path / "file" / "below"), {})
