"""Context settings (rest_contract 4.4) as what a driver is started with."""

from __future__ import annotations

import pytest

from jobserver.contexts.launch_spec import flatten, launch_spec, whole_number
from jobserver.errors import BadRequest, ContextInitFailed


def spec(settings, **conf):
    return launch_spec(settings, master="local[2]", driver_memory="1024m", python="", conf=conf)


def test_the_contracts_keys_become_sparks():
    made = dict(
        spec(
            {
                "num-cpu-cores": 2,
                "memory-per-node": "512m",
                "spark": {"sql": {"shuffle": {"partitions": 4}}},
                "passthrough": {"spark.driver.allowMultipleContexts": True},
                "hadoop": {"fs.s3a.endpoint": "x"},
            }
        ).spark_conf
    )
    assert made == {
        "spark.cores.max": "2",
        "spark.executor.memory": "512m",
        "spark.sql.shuffle.partitions": "4",
        "spark.driver.allowMultipleContexts": "true",
        "spark.hadoop.fs.s3a.endpoint": "x",
        "spark.master": "local[2]",
    }


def test_a_contexts_own_settings_win_over_the_servers():
    made = spec(
        {"spark.sql.shuffle.partitions": "7", "launcher.spark.master": "local[1]"},
        **{"spark.sql.shuffle.partitions": "2"},
    )
    assert dict(made.spark_conf)["spark.sql.shuffle.partitions"] == "7"
    assert dict(made.spark_conf)["spark.master"] == "local[1]"


def test_equal_settings_make_equal_specs_whatever_their_form():
    assert spec({"spark": {"a": "1"}, "x": 1}) == spec({"spark.a": 1})


@pytest.mark.parametrize("memory", ["1.5g", "2G", "lots", ""])
def test_a_memory_spark_would_not_take_is_refused_with_the_contracts_text(memory):
    with pytest.raises(ContextInitFailed, match=r"Accepted formats 1024k, 2g, 512m"):
        spec({"launcher.spark.driver.memory": memory})


def test_lists_are_joined_and_null_is_left_out():
    assert dict(flatten({"a": ["x", "y"], "b": None, '"c.d"': 1})) == {"a": "x,y", "c.d": "1"}


@pytest.mark.parametrize("value", ["many", "-1", "0", "99", "1.5"])
def test_a_number_out_of_its_bounds_is_refused_by_its_key(value):
    with pytest.raises(BadRequest, match="max-jobs"):
        whole_number({"max-jobs": value}, "max-jobs", 8, least=1, most=10)


@pytest.mark.parametrize(
    "settings",
    [
        {"num-cpu-cores": "many"},
        {"num-cpu-cores": 0},
        {"num-cpu-cores": "1.5"},
        {"memory-per-node": "much"},
        {"memory-per-node": "0"},
        {"memory-per-node": "-1g"},
    ],
)
def test_a_number_or_size_that_is_none_is_refused_before_a_driver_starts(settings):
    (key,) = settings
    with pytest.raises(BadRequest, match=key):
        launch_spec(settings, master="local[2]", driver_memory="1g", python="", conf={})


@pytest.mark.parametrize("memory", ["512m", "512MB", "2g", "1073741824", "1048576k"])
def test_sizes_that_spark_takes_for_executors_are_taken(memory):
    spec = launch_spec({"memory-per-node": memory}, master="local[2]", driver_memory="1g", python="", conf={})
    assert dict(spec.spark_conf)["spark.executor.memory"] == memory
