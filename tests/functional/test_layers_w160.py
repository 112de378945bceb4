"""The 160 distributions of W160: one identity, whichever way it is found."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from likewise.layers.claimed import claimed_source
from likewise.layers.wheel import wheel_entries
from likewise.model.digest import Digest
from likewise.model.layer import LayerKind, layer_digest, layer_source
from likewise.scanner.files import find_unlisted, list_files, record_digest, settle
from support.w160 import w160_python  # noqa: F401
from support.wheels import NoFacts, layout_of, site_packages, w160_wheels  # noqa: F401

pytestmark = [pytest.mark.w160, pytest.mark.registry]


def stem(name: str) -> str:
    """``Name-1.0…`` in the form that wheels and dist-infos of one distribution share."""
    project, version = re.sub(r"\.(dist-info|whl)$", "", name).split("-")[:2]
    return f"{re.sub(r'[-_.]+', '-', project).lower()} {version.lower()}"


@pytest.fixture(scope="module")
def claimed(w160_python: Path) -> dict[str, Digest]:  # noqa: F811
    """The digest of each distribution as its RECORD claims it; the time it took is printed."""
    site = site_packages(w160_python)
    infos = sorted(site.glob("*.dist-info"))
    started = time.perf_counter()
    digests = {stem(info.name): record_digest(info, layout=layout_of(site)) for info in infos}
    print(f"\n{len(digests)} digests from RECORD in {time.perf_counter() - started:.3f} s")
    return digests


def test_the_160_digests_from_installed_and_from_wheel_are_equal(
    claimed: dict[str, Digest],
    w160_wheels: Path,  # noqa: F811
) -> None:
    """Scripts, headers, data, executable bits and all; the wheel's side hashes every byte of the wheel."""
    wheels = sorted(w160_wheels.glob("*.whl"))
    with ThreadPoolExecutor() as pool:
        from_wheels = dict(pool.map(lambda wheel: (stem(wheel.name), layer_digest(wheel_entries(wheel))), wheels))
    assert len(from_wheels) == 160
    assert claimed == from_wheels


def test_the_160_digests_are_known_from_a_small_part_of_each_wheel(
    claimed: dict[str, Digest],
    w160_wheels: Path,  # noqa: F811
) -> None:
    """What a client learns of a wheel by asking for its directory and metadata is the layer that nodes will make."""
    found = {}
    for wheel in sorted(w160_wheels.glob("*.whl")):
        with wheel.open("rb") as file:
            found[stem(wheel.name)] = claimed_source(file, where=wheel.name).digest
    assert found == claimed


def test_what_the_disk_holds_is_what_record_claims(
    claimed: dict[str, Digest],
    w160_python: Path,  # noqa: F811
) -> None:
    """Every file read and hashed: nothing modified, missing, unlisted or left over, and the same 160 digests."""
    site = site_packages(w160_python)
    listings = [list_files(info, layout=layout_of(site)) for info in sorted(site.glob("*.dist-info"))]
    left = find_unlisted(listings)
    results = settle(listings, NoFacts())
    assert [(r.modified, r.missing, r.unlisted, r.problems) for r in results] == [((), (), (), ())] * 160
    assert {Path(path).name for path in left} <= {"_virtualenv.py", "_virtualenv.pth"}
    layers = [
        layer_source(LayerKind.DISTRIBUTION, one.name, "", r.files) for one, r in zip(listings, results, strict=True)
    ]
    assert {stem(layer.name): layer.digest for layer in layers} == claimed
    assert sum(len(layer.files) for layer in layers) == 29651
