"""Where the tests' MariaDB comes from: told in one line, also where no container engine answers."""

from __future__ import annotations

import pytest

from tests import conftest
from tests.mariadb import engine_trouble


def test_without_an_image_it_comes_from_its_jar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(conftest.IMAGE, raising=False)
    why = "MariaDB: from its jar, as JOBSERVER_MARIADB_IMAGE names no image of a container"
    assert conftest.origin() == (None, why)


def test_an_engine_that_does_not_answer_is_told_in_one_line_and_the_jar_takes_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(conftest.IMAGE, "mariadb:10.11")
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    trouble = engine_trouble()
    assert trouble is not None
    assert trouble.startswith("no container engine answers (")
    assert conftest.origin() == (None, f"MariaDB: from its jar: {trouble}")
    assert "\n" not in trouble


def test_an_engine_that_answers_runs_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(conftest.IMAGE, "mariadb:10.11")
    monkeypatch.setattr(conftest, "engine_trouble", lambda: None)
    assert conftest.origin() == ("mariadb:10.11", "MariaDB: a container of mariadb:10.11")
