"""The verbs `compare` and `scale` refuse what they cannot do before any data is built."""

import pytest
from typer.testing import CliRunner

from uniscale.cli import app
from uniscale.errors import ConfigError


def refused(*arguments):
    """The error of a command."""
    done = CliRunner().invoke(app, list(arguments))
    assert isinstance(done.exception, ConfigError), done.output
    return str(done.exception)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("compare", "hhsft@search", "hhsft@search,model.hhsft.derf=false"), "model.hhsft.derf"),
        (("compare", "dlrm_mlp@search", "hhsf@search"), "did you mean hhsft"),
        (("compare", "--table", "uniscale-5"), "did you mean uniscale-"),
        (("compare", "--table", "est-1", "hhsft@search"), "either systems"),
        (("compare", "--table", "est-figure-3", "--budget", "10000"), "one system"),
        (("compare", "--table", "est-1", "--rates", "1e-3,fast"), "takes numbers"),
        (("scale", "est@search", "--axis", "dept"), "did you mean depth"),
        (("scale", "est@search", "--axis", "model.est.dimm", "--values", "8,16,32"), "model.est.dimm"),
        (("scale", "est@search", "--axis", "model.est.dim"), "give some by --values"),
        (("scale", "est@search", "--axis", "data", "--values", "0.5,1,2"), "shares of the days"),
        (
            ("scale", "est@search", "--axis", "width", "--values", "12,13", "--set", "model.est.heads=2"),
            "do not divide",
        ),
    ],
)
def test_a_study_is_refused_with_the_remedy_before_any_work(arguments, message, tmp_path):
    out = tmp_path / "out"
    assert message in refused(*arguments, "--out", str(out))
    assert not out.exists()
