"""What `Accept` asks for."""

import pytest

from jobserver.api.representations import preferred, submitted_format
from jobserver.model import ResultFormat

JSON, ARROW, PARQUET = ResultFormat.JSON, ResultFormat.ARROW, ResultFormat.PARQUET


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (None, JSON),
        ("", JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        ("application/json", JSON),
        ("APPLICATION/vnd.apache.arrow.stream", ARROW),
        ("application/vnd.apache.parquet; q=0.9, application/vnd.apache.arrow.stream;q=0.8", PARQUET),
        ("application/vnd.apache.arrow.stream, */*;q=0.1", ARROW),
        ("application/json;q=0, application/*", ARROW),
        ("application/json;q=0.5, application/vnd.apache.parquet;v=2", PARQUET),
        ("application/vnd.apache.arrow.stream;q=0", None),
        ("application/vnd.apache.arrow.stream;q=nonsense", ARROW),
        ("text/html", None),
        (";;,=,q", None),
    ],
)
def test_the_client_gets_the_format_it_likes_best(accept, wanted):
    assert preferred(accept, (JSON, ARROW, PARQUET)) is wanted
    assert submitted_format(accept) is (wanted or JSON)


def test_what_is_not_offered_is_not_chosen():
    assert preferred("application/vnd.apache.arrow.stream, application/json;q=0.1", (JSON,)) is JSON
    assert preferred("application/vnd.apache.arrow.stream", (JSON, PARQUET)) is None
