"""Which part of the client's Dask configuration goes to the nodes."""

from __future__ import annotations

import datetime
import json
from typing import Any

import dask.config
import distributed  # noqa: F401  (its defaults)
import pytest

from likewise.cluster.client_config import portable_config


def test_dasks_own_defaults_go_whole() -> None:
    """Nothing of what Dask says by itself is taken for a secret or a path, but TLS, which goes another way."""
    defaults = dask.config.merge(*dask.config.defaults)
    kept, left_out = portable_config(defaults, defaults)
    assert left_out == ()
    del defaults["distributed"]["comm"]["tls"], defaults["distributed"]["comm"]["require-encryption"]
    del defaults["distributed"]["client"]["security-loader"]
    assert kept == defaults


def test_it_can_be_sent() -> None:
    """What goes is JSON, and shares nothing with the client's own."""
    config = {"a": {"b": [1, {"c": 2.5}], "d": None, "e": float("inf")}}
    kept, _ = portable_config(config)
    assert json.loads(json.dumps(kept)) == config
    kept["a"]["b"].append(3)
    kept["a"]["b"][1]["c"] = 0
    assert config["a"]["b"] == [1, {"c": 2.5}]


@pytest.mark.parametrize(
    "config",
    [
        {"cloud": {"token": "t0p"}},
        {"cloud": {"api-key": "t0p"}},
        {"cloud": {"api_key": 1234}},
        {"cloud": {"password": "t0p"}},
        {"cloud": {"credentials": {"user": "ann", "value": "t0p"}}},
        {"gateway": {"auth": {"kwargs": {"x": "t0p"}}}},
        {"storage": {"secret": ["t0p"]}},
        {"index": {"url": "https://ann:t0p@example.org/simple"}},
        {"index": {"urls": ["https://example.org", "https://ann:t0p@example.org/simple"]}},
        {"store": {"url": "https://example.org/x?X-Amz-Signature=t0p"}},
        {"temporary-directory": "/home/ann/scratch"},
        {"some": {"where": "~/data"}},
        {"some": {"where": "file:///home/ann"}},
        {"some": {"where": "C:\\Users\\ann"}},
        {"some": {"log-file": "ann.log"}},
        {"some": {"when": datetime.date(2026, 1, 1)}},
        {"some": {"what": print}},
        {"some": {"what": {1: 2}}},
    ],
)
def test_secrets_paths_and_objects_stay(config: dict[str, Any]) -> None:
    """What could be a secret, is a path, or is no plain data stays on the client, and its name is told."""
    kept, left_out = portable_config({**config, "array": {"chunk-size": "128MiB"}})
    section = next(iter(config))
    assert len(left_out) == 1
    assert left_out[0].startswith(section)
    text = json.dumps(kept)
    assert not any(word in text for word in ("t0p", "ann", "1234", "2026"))
    assert kept["array"] == {"chunk-size": "128MiB"}


def test_a_default_fills_the_hole() -> None:
    """Where something stays, the library's default goes instead, so that no file on the node decides."""
    defaults = {"temporary-directory": None, "distributed": {"dashboard": {"export-tool": False}}}
    kept, left_out = portable_config({"temporary_directory": "/home/ann/scratch"}, defaults)
    assert kept == {"temporary_directory": None}
    assert left_out == ("temporary-directory",)


@pytest.mark.parametrize(
    "value", ["{scheme}://{host}:{port}/status", "/status", "24h", "tls://10.0.0.1:8786", "a/b", "50%", ":8787"]
)
def test_what_only_looks_like_a_path(value: str) -> None:
    """Routes, addresses and units are no paths."""
    config = {"distributed": {"dashboard": {"link": value}}}
    assert portable_config(config) == (config, ())


def test_what_belongs_to_this_client_alone() -> None:
    """The address of a scheduler, TLS, and what a parent process sent to this one never go, and need no notice."""
    config = {
        "scheduler-address": "tcp://other:8786",
        "internal_inherit_config": "eyJ9",
        "distributed": {
            "comm": {"tls": {"ca-file": "-----BEGIN\n"}, "require_encryption": True, "retry": {"count": 3}}
        },
    }
    assert portable_config(config) == ({"distributed": {"comm": {"retry": {"count": 3}}}}, ())


def test_logging_goes_whole_or_not_at_all() -> None:
    """A logging configuration that names a file stays: without the file's name it would keep nodes from starting."""
    levels = {"distributed": {"logging": {"distributed": "warning"}}}
    assert portable_config(levels) == (levels, ())
    to_file = {"logging": {"version": 1, "handlers": {"f": {"class": "logging.FileHandler", "filename": "/x/log"}}}}
    assert portable_config(to_file) == ({}, ("logging",))
