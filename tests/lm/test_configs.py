"""Configs reach runtimes complete."""

import math

from studio import core
from studio.lm.configs import complete_config
from tests.core.checkpoints import CONFIG, checkpoint


def test_floats_that_json_has_no_word_for_are_floats(tmp_path):
    odd = {
        **CONFIG,
        "limit": {"__float__": "Infinity"},
        "pair": [{"__float__": "-Infinity"}, {"a": 1}],
        "x": {"__float__": 3},
    }
    with core.open_model(checkpoint(tmp_path / "model", config=odd)) as model:
        found = complete_config(model)
    assert found["limit"] == math.inf
    assert found["pair"] == [-math.inf, {"a": 1}]
    assert found["x"] == {"__float__": 3}


def test_what_newer_checkpoints_nest_is_where_older_readers_look(tmp_path):
    config = {**CONFIG, "rope_parameters": {"rope_theta": 5e4, "rope_type": "default"}}
    config.pop("rope_theta")
    with core.open_model(checkpoint(tmp_path / "model", config=config)) as model:
        assert complete_config(model)["rope_theta"] == 5e4
