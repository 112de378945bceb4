"""The rules: how far versions may move, what exists on some platforms alone, and local versions of accelerators."""

from __future__ import annotations

from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from likewise.model.plan import Level
from likewise.model.snapshot import Distribution, Origin, OriginKind
from likewise.planner import tables
from likewise.planner.levels import Rule, local_for, platform_only, rule_for, specifier
from likewise.planner.options import PlanOptions
from likewise.planner.tables import critical_distributions, rows
from likewise.planner.targets import parse_platform, parse_target

MAC, MAC_INTEL, WINDOWS = map(parse_platform, ("osx-arm64", "osx-64", "win-64"))
LINUX, ARM = map(parse_platform, ("linux-64", "linux-aarch64"))
TARGET = parse_target("linux-64", python="3.11.7")


def rule(name: str, version: str = "1.2.3", options: PlanOptions | None = None) -> Rule:
    distribution = Distribution(name=name, version=version, origin=Origin(kind=OriginKind.INDEX))
    return rule_for(distribution, TARGET, options or PlanOptions())


@pytest.mark.parametrize(
    ("version", "level"),
    [
        ("1.2.3", Level.MINOR),
        ("1.2.3.4", Level.MINOR),
        ("1!1.2.3", Level.MINOR),
        ("2.5.1+cu124", Level.MINOR),
        ("1.2.3rc1", Level.MINOR),
        ("1.2", Level.EXACT),
        ("7", Level.EXACT),
        ("0.1.dev3+gabc", Level.EXACT),
        ("not-a-version", Level.EXACT),
        ("", Level.EXACT),
    ],
)
def test_the_form_of_the_version_decides(version: str, level: Level) -> None:
    """Three parts may move within major.minor; fewer, and what is no version at all, may not."""
    assert rule("anything", version).level is level
    assert rule("anything", version).reason


def test_dates_may_move() -> None:
    """Data that are named by date have no minor version; the line of the file is the reason."""
    assert rule("tzdata", "2024.2").level is Level.ANY
    assert "date" in rule("Certifi", "2024.8.30").reason


@pytest.mark.parametrize("name", ["dask", "Distributed", "tornado", "cloudpickle", "msgpack", "likewise"])
@pytest.mark.parametrize(
    "options", [PlanOptions(), PlanOptions(strict=True), PlanOptions(levels=(("dask", "any"), ("tornado", "any")))]
)
def test_critical_is_exact_whatever_is_asked(name: str, options: PlanOptions) -> None:
    """No option reaches a critical distribution, and conda's names are critical, too."""
    assert rule(name, options=options).level is Level.EXACT
    assert rule(name, options=options).reason.startswith("critical: ")
    assert rule("dask-core").level is rule("msgpack-python").level is Level.EXACT


def test_what_was_asked_for_comes_before_the_rules() -> None:
    """By any spelling of the name; strict before it all."""
    asked = PlanOptions(levels=(("Scikit_Learn", "any"), ("tzdata", "exact")))
    assert rule("scikit-learn", options=asked) == Rule(Level.ANY, "as asked")
    assert rule("tzdata", "2024.2", asked).level is Level.EXACT
    assert rule("numpy", options=asked).level is Level.MINOR
    assert rule("tzdata", "2024.2", PlanOptions(strict=True)).level is Level.EXACT


@pytest.mark.parametrize(
    ("level", "version", "expected"),
    [
        (Level.EXACT, "1.2.3", "==1.2.3"),
        (Level.EXACT, "2.5.1+cu124", "==2.5.1"),
        (Level.EXACT, "not-a-version", "===not-a-version"),
        (Level.MINOR, "1.26.4", "==1.26.*"),
        (Level.MINOR, "2!1.26.4.post1", "==2!1.26.*"),
        (Level.MINOR, "2.5.1+cu124", "==2.5.*"),
        (Level.MINOR, "7", "==7"),
        (Level.MINOR, "not-a-version", "===not-a-version"),
        (Level.ANY, "1.2.3", ""),
    ],
)
def test_specifiers(level: Level, version: str, expected: str) -> None:
    """What a level allows, in PEP 440's words, the installed version among it."""
    assert specifier(level, version) == expected
    assert SpecifierSet(expected).contains(version, prereleases=True)


@pytest.mark.parametrize(
    ("name", "client", "words"),
    [
        ("appnope", MAC, "only on macOS"),
        ("pyobjc", MAC, "only on macOS"),
        ("pyobjc-framework-Cocoa", MAC_INTEL, "only on macOS"),
        ("pywin32", WINDOWS, "only on Windows"),
        ("vs2015_runtime", WINDOWS, "only on Windows"),
        ("m2w64-gcc-libs", WINDOWS, "only on Windows"),
        ("winrt-Windows.Foundation", WINDOWS, "only on Windows"),
        ("docx2pdf", MAC, "only on macOS and Windows"),
    ],
)
def test_platform_only(name: str, client: object, words: str) -> None:
    """Names of PyPI and conda, whole families of them, with where they exist and why not elsewhere."""
    assert platform_only(name, client, LINUX).startswith(f"{words}: ")  # type: ignore[arg-type]
    assert platform_only(name, client, ARM)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name", ["colorama", "numpy", "pyobject", "winning", "gnureadline", "xlwings", "keyring", "tensorflow"]
)
def test_what_exists_everywhere_stays(name: str) -> None:
    """Useful on one system perhaps, or named alike; it is shipped."""
    assert platform_only(name, MAC, LINUX) == platform_only(name, WINDOWS, LINUX) == ""


def test_what_came_in_regardless_can_go_out_again() -> None:
    """A distribution on a client that should not have it is no matter of the platform; nor is the same platform."""
    assert platform_only("pywin32-ctypes", MAC, LINUX) == ""
    assert platform_only("appnope", LINUX, ARM) == ""
    assert platform_only("appnope", MAC, MAC) == ""


def test_architectures_count() -> None:
    """Intel's libraries are on every system with Intel's processors."""
    assert platform_only("mkl", MAC_INTEL, LINUX) == ""
    assert platform_only("mkl", WINDOWS, ARM).startswith("only on macOS x86_64, Windows x86_64 and Linux x86_64: ")


@pytest.mark.parametrize(
    ("version", "cpu", "cuda"),
    [
        ("2.5.1", "", ""),
        ("2.5.1+cpu", "cpu", "cu128"),
        ("2.5.1+cu118", "cpu", "cu118"),  # drivers run what was built for an older CUDA
        ("2.5.1+cu124", "cpu", "cu124"),
        ("2.8.0+cu129", "cpu", "cu129"),  # a later minor version of the same major one
        ("2.9.0+cu130", "cpu", "cu128"),
        ("1.9.0+cu92", "cpu", "cu92"),
        ("2.5.1+rocm6.2", "cpu", "cu128"),
        ("2.5.1+xpu", "cpu", "cu128"),
        ("2.5.1+cpu.cxx11.abi", "cpu.cxx11.abi", "cu128"),
        ("2.1.2+pt25cu124", "pt25cpu", "pt25cu124"),
        ("2.1.2+pt25cpu", "pt25cpu", "pt25cu128"),
        ("0.4.25+cuda12.cudnn89", "", "cuda12.cudnn89"),  # jaxlib's for processors has no label
        ("0.3.0+cuda110", "", "cuda110"),
        ("1.0.0+cu13", "cpu", "cu128"),
        ("1.0.0+gabc123", "gabc123", "gabc123"),
        ("1.0.0+custom", "custom", "custom"),
        ("1.0.0+cp.5", "cp.5", "cp.5"),
        ("no version", "", ""),
    ],
)
def test_local_versions(version: str, cpu: str, cuda: str) -> None:
    """Labels of accelerators become those of the target, all others stay."""
    assert local_for(version, TARGET) == cpu
    assert local_for(version, parse_target("linux-64-cuda12.8", python="3.11.7")) == cuda


def test_before_cuda_11_a_later_minor_version_needs_a_later_driver() -> None:
    """Minor version compatibility begins with CUDA 11."""
    assert local_for("1.7.0+cu102", parse_target("linux-64-cuda10.1", python="3.8.1")) == "cu101"


@pytest.mark.parametrize(("table", "columns"), [("critical.txt", 2), ("fuzz.txt", 3), ("platform_only.txt", 3)])
def test_every_line_of_the_data_has_a_reason(table: str, columns: int) -> None:
    """Names normalized, none twice, each with everything that its table says of it."""
    found = [(name, others) for names, others in rows(table, columns) for name in names]
    assert found
    assert all(len(reason) > 10 and not reason.endswith(".") for _, (*_, reason) in found)
    names = [name.removesuffix("*").rstrip("-") if name.endswith("*") else name for name, _ in found]
    assert all(name == canonicalize_name(name) for name in names if not name.startswith("("))
    assert len({name for name, _ in found}) == len(found)


def test_nothing_critical_is_platform_only_or_may_move() -> None:
    """The tables don't contradict each other."""
    critical = set(critical_distributions())
    assert not any(platform_only(name, client, LINUX) for name in critical for client in (MAC, WINDOWS))
    assert critical.isdisjoint(name for names, _ in rows("fuzz.txt", 3) for name in names)


def test_a_line_without_a_reason_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever adds a line and forgets why is told which."""
    (tmp_path / "table.txt").write_text("# comment\n\na / b  macos  a reason\nc  macos\n")
    monkeypatch.setattr(tables, "files", lambda _: tmp_path)
    read = rows("table.txt", 3)
    assert next(read) == (("a", "b"), ("macos", "a reason"))
    with pytest.raises(ValueError, match="'c  macos'"):
        next(read)
