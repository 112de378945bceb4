"""Outlines of whatever layers, damaged in whatever way."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from likewise.errors import NodeError
from likewise.layers.outline import build_outline
from likewise.model.layer import LayerSource
from likewise.model.outline import check, closure, decode_outline
from support.nodes import layer, manifest_of

NAME = st.text("abcdé-._", min_size=1, max_size=4).filter(lambda name: name.strip("."))
CONTENT = st.binary(max_size=6)


@st.composite
def environments(draw: st.DrawFn) -> tuple[list[LayerSource], dict[str, list[str]]]:
    """Layers with different names, and who requires whom."""
    names = draw(st.lists(NAME, min_size=1, max_size=5, unique=True))
    layers = []
    for number, name in enumerate(names):
        info = f"purelib/{number}-1.dist-info"
        files = {f"{info}/METADATA": draw(CONTENT), f"purelib/m{number}.py": draw(CONTENT)}
        files.update({f"{info}/licenses/{number}{extra}": b"" for extra in draw(st.sets(st.sampled_from("xyz")))})
        if draw(st.booleans()):
            files[f"purelib/{number}.pth"] = draw(CONTENT)
        layers.append(layer(name, files))
    requires = {name: draw(st.lists(st.sampled_from([*names, "missing"]))) for name in names}
    return layers, requires


@given(environments())
def test_an_outline_comes_back_and_fits_its_manifest(
    environment: tuple[list[LayerSource], dict[str, list[str]]],
) -> None:
    """What was encoded is decoded to the same, and is the outline of the manifest of the same layers."""
    layers, requires = environment
    outline = build_outline(layers, requires)
    again = decode_outline(outline.encode())
    assert again == outline and again.encode() == outline.encode()
    assert check(again, manifest_of(*layers)) == tuple(tuple(f.entry for f in each.files) for each in layers)


@given(environments(), st.data())
def test_damage_is_refused_or_changes_nothing_that_counts(
    environment: tuple[list[LayerSource], dict[str, list[str]]], data: st.DataObject
) -> None:
    """Any byte may be another: what is not refused has the same listings and files, and knows no other layer."""
    layers, requires = environment
    outline = build_outline(layers, requires)
    encoded = bytearray(outline.encode())
    encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    try:
        damaged = decode_outline(bytes(encoded))
        check(damaged, manifest_of(*layers))
    except NodeError:
        return
    for found, was in zip(damaged.layers, outline.layers, strict=True):
        assert (found.name, found.digest, found.listing, found.files) == (was.name, was.digest, was.listing, was.files)
        assert set(found.requires) <= {each.name for each in layers}


@given(environments())
def test_what_is_required_is_closed(environment: tuple[list[LayerSource], dict[str, list[str]]]) -> None:
    """Whatever a member of a closure requires is a member, too, and nothing is in it twice."""
    layers, requires = environment
    outline = build_outline(layers, requires)
    direct = {each.name: set(each.requires) for each in outline.layers}
    for name, members in closure(outline).items():
        assert members[0] == name
        assert len(set(members)) == len(members)
        assert all(direct[member] <= set(members) for member in members)
        reachable = {name}.union(*(direct[member] for member in members))
        assert set(members) == reachable
