"""What of conda's packages has to be there before others may run, and what a node needs of them to join."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from likewise.formats.saved import read_saved
from likewise.model.conda import CondaPackage, spec_name
from likewise.model.digest import EMPTY
from likewise.model.layer import LayerKind
from likewise.model.origins import redact_channel, redact_spec
from likewise.model.snapshot import Distribution, Origin, OriginKind, Snapshot
from likewise.planner.requirements import layer_requirements
from likewise.planner.selection import conda_beneath
from support.nodes import layer
from support.values import TARGET, make_interpreter


def package(name: str, *requires: str, **other: Any) -> CondaPackage:
    """A conda package with a layer of its own."""
    return CondaPackage(name=name, version="1", requires=requires, **{"content": EMPTY, **other})


PACKAGES = (
    package("blas", "libgcc >=12"),
    package("libgcc"),
    package("gdal", "blas"),
    package("meta", "gdal", content=None),
    package("numpy", "python >=3.11", "blas 1.*", "conda-forge::libgcc", distributions=("numpy",)),
    package("old", "gdal", distributions=("old",), replaced="pip"),
    package("openssl", "libgcc"),
    package("python", "openssl >=3", "pip"),
)
SNAPSHOT = Snapshot(
    interpreter=make_interpreter(),
    distributions=tuple(
        Distribution(name=name, version="1", origin=Origin(kind=OriginKind.CONDA)) for name in ("numpy", "old")
    ),
    code=(),
    conda=PACKAGES,
)


def test_layers_of_packages() -> None:
    """Python's is the interpreter, a distribution's is that; what pip left of a package has one."""
    own = {one.name: one.layer for one in PACKAGES if one.layer}
    assert own == {name: f"conda:{name}" for name in ("blas", "libgcc", "gdal", "old", "openssl")}


def test_a_distribution_waits_for_the_libraries_of_its_package() -> None:
    """For what conda says, directly; where pip has replaced it conda's word does not count any more."""
    layers = [layer(name, {f"purelib/{name}.py": b"1"}) for name in ("numpy", "old")]
    layers += [
        layer(one.layer, {f"data/lib/{one.name}.so": b""}, kind=LayerKind.CONDA) for one in PACKAGES if one.layer
    ]
    found = layer_requirements(SNAPSHOT, TARGET, layers)
    assert found["numpy"] == ("conda:blas", "conda:libgcc")
    assert found["old"] == ()
    assert found["conda:blas"] == ("conda:libgcc",) and found["conda:gdal"] == ("conda:blas",)


def test_a_kit_has_what_python_and_its_distributions_depend_on() -> None:
    """All of it, over packages that have nothing themselves, and nothing for a distribution that pip has replaced."""
    assert conda_beneath(SNAPSHOT, ["distributed"]) == ("conda:libgcc", "conda:openssl")
    assert conda_beneath(SNAPSHOT, ["numpy", "old"]) == ("conda:blas", "conda:libgcc", "conda:openssl")
    assert conda_beneath(msgspec.structs.replace(SNAPSHOT, conda=()), ["numpy"]) == ()


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("numpy", "numpy"),
        ("numpy >=1.22,<2", "numpy"),
        ("numpy=1.26=py311*", "numpy"),
        ("numpy>=1", "numpy"),
        ("conda-forge/linux-64::NumPy[version='1.*']", "numpy"),
        ("__glibc >=2.17", "__glibc"),
        ("", ""),
    ],
)
def test_names_in_match_specs(spec: str, name: str) -> None:
    """In every form that conda and its like write."""
    assert spec_name(spec) == name


def test_credentials_in_channels_and_specs() -> None:
    """User info, tokens and queries go; names and versions stay."""
    assert redact_channel("https://u:p@conda.invalid/t/tok/forge") == "https://conda.invalid/forge"
    assert redact_channel("conda-forge") == "conda-forge"
    assert redact_channel("t/tok/private") == "private"
    assert redact_spec("https://conda.invalid/t/tok/forge::numpy >=1") == "https://conda.invalid/forge::numpy >=1"
    assert redact_spec("https://u:p@conda.invalid/noarch/a-1-0.conda") == "https://conda.invalid/noarch/a-1-0.conda"
    assert redact_spec("numpy >=1") == "numpy >=1"
    assert redact_spec("t/tok/forge::numpy >=1") == "forge::numpy >=1"
    assert (
        redact_spec("a[channel='https://u:p)@h.invalid/t/tok/b',version=1]")
        == "a[channel='https://h.invalid/b',version=1]"
    )
    assert redact_spec("HTTPS://u:p@h.invalid/b::a[version='>=1,<2']") == "https://h.invalid/b::a[version='>=1,<2']"


def test_saved_snapshots() -> None:
    """One with conda packages can be read back, without what somebody put into its URLs; an older one as well."""
    dirty = package("tool", "https://u:p4ss@conda.invalid/x::base", channel="https://u:p4ss@conda.invalid/x")
    snapshot = msgspec.structs.replace(SNAPSHOT, conda=(*PACKAGES, dirty), virtual_packages=("__unix=0=0",))
    read = read_saved(msgspec.json.encode(snapshot).decode())
    assert read.conda[:-1] == PACKAGES and read.virtual_packages == ("__unix=0=0",)
    assert "p4ss" not in str(read)
    fields = msgspec.to_builtins(SNAPSHOT)
    del fields["conda"], fields["virtual_packages"]
    assert read_saved(msgspec.json.encode(fields).decode()).conda == ()
