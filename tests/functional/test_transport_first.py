"""What a launch needs first reaches the hub first, whoever gives it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from likewise.model.layer import LayerKind
from likewise.model.manifest import LayerRef, Manifest
from support.agents import Agent, Client, new_cluster, until
from support.nodes import layer
from support.values import TARGET

SIZES = {"small": 100_000, **{f"large{number}": 8_000_000 - number for number in range(4)}}


@pytest.mark.parametrize("first", ["small,other", ""])
def test_the_hub_knows_what_is_needed_first(tmp_path: Path, first: str) -> None:
    """It is asked for before what is larger; where nobody says what is needed, the larger ones come first."""
    layers = [layer(name, {f"purelib/{name}.bin": os.urandom(size)}) for name, size in SIZES.items()]
    refs = [
        LayerRef(kind=LayerKind.DISTRIBUTION, name=one.name, version="1.0", digest=one.digest, files=1, size=one.size)
        for one in layers
    ]
    manifest = Manifest(target=TARGET, python="python3.11", cache_tag="cpython-311", layers=tuple(refs))
    more = ["--first", first] if first else []
    with (
        Agent("hub", new_cluster(), tmp_path / "hub", *more) as hub,
        Client(hub.address, *layers, manifest=manifest.encode()) as client,
    ):
        assert hub.source().manifest(manifest.id) == manifest  # as the first process of its machine asks
        until(lambda: len(client.uploader.sent) == len(layers))
        names = {one.digest: one.name for one in layers}
        order = [names[digest] for digest in client.uploader.sent]
    assert (order[0] == "small") == bool(first)  # two at a time: which of the large ones is quicker, nobody knows
