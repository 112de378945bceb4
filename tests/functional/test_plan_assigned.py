"""Distributions that come from a certain index: uv's sources, and PyTorch's indexes. With uv and real servers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from likewise.errors import PlanError
from likewise.indexes import Indexes, find_indexes
from likewise.indexes.fetch import fetch
from likewise.indexes.plans import settle
from likewise.model.plan import Action, Plan
from likewise.model.target import Target
from likewise.planner.elsewhere import plan_elsewhere
from likewise.planner.options import PlanOptions
from likewise.planner.targets import parse_target
from likewise.resolution.uv import UvResolver
from support.canaries import canary, words_beneath, words_said
from support.indexes import IndexServer, offer, serve_index
from support.plans import LINUX, LINUX_TAG, decided, installed, said, snapshot_of

CUDA = parse_target("linux-64-cuda12.8", python="3.11.7")
ARM = parse_target("linux-aarch64", python="3.11.7")


def found(folder: Path, **environ: str) -> Indexes:
    """The indexes of a user who works in `folder`, and has these variables and nothing else."""
    return find_indexes(
        environ={"XDG_CONFIG_DIRS": str(folder / "none"), **environ},
        home=folder / "home",
        folder=folder,
        machine=folder / "machine",
    )


def planned(
    folder: Path,
    indexes: Indexes,
    *installed_here: tuple[str, ...],
    target: Target = LINUX,
    extras: tuple[str, ...] = (),
    strict: bool = False,
) -> Plan:
    """The plan for a Mac that has these, compiled."""
    environ, arguments = indexes.for_uv()
    environ |= {"UV_CACHE_DIR": str(folder / "cache"), "UV_HTTP_RETRIES": "0"}
    resolver = UvResolver(work=folder / "work", environ=environ, arguments=arguments, assigned=indexes.assigned(target))
    snapshot = snapshot_of(*(installed(*one) for one in installed_here))
    options = PlanOptions(extras=extras, strict=strict)
    withheld = indexes.withheld(target)
    return settle(plan_elsewhere(snapshot, target, options, resolver, here=True, withheld=withheld), indexes)


@contextmanager
def at_path(path: str, index: IndexServer) -> Iterator[str]:
    """The URL of a server that has the pages of `index` beneath `path`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            here = self.path.startswith(path)
            self.send_response(302 if here else 404)
            self.send_header("Location", index.url + self.path.removeprefix(path).lstrip("/"))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}{path}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def public(tmp_path: Path) -> Iterator[IndexServer]:
    """An index for everything; its torch is for CUDA, as everybody's is."""
    folder = tmp_path / "public"
    for arch in ("x86_64", "aarch64"):
        cuda = ["nvidia-cublas ; platform_machine == 'x86_64'"]
        offer(folder, "torch", "2.5.1", tag=f"cp311-cp311-manylinux_2_17_{arch}", requires=cuda)
    offer(folder, "nvidia-cublas", "12.4.5", tag=LINUX_TAG)
    offer(folder, "sample", "1.2.3", tag=LINUX_TAG)
    offer(folder, "torchvision", "0.20.1", tag=LINUX_TAG, requires=["torch"])
    with serve_index(folder) as index:
        yield index


@pytest.fixture
def cpu(tmp_path: Path) -> Iterator[IndexServer]:
    """An index of builds for processors, which has an old version of something else as well."""
    offer(tmp_path / "cpu", "torch", "2.5.1+cpu", tag=LINUX_TAG)
    offer(tmp_path / "cpu", "torchvision", "0.20.1+cpu", tag=LINUX_TAG, requires=["torch"])
    offer(tmp_path / "cpu", "sample", "0.0.1", tag=LINUX_TAG)
    with serve_index(tmp_path / "cpu") as index:
        yield index


def project(folder: Path, *entries: tuple[str, str], sources: str) -> None:
    """A project in `folder` with explicit indexes (name, URL) and these sources."""
    lines = [f'[[tool.uv.index]]\nname = "{name}"\nurl = "{url}"\nexplicit = true' for name, url in entries]
    (folder / "pyproject.toml").write_text("\n".join([*lines, "[tool.uv.sources]", sources]))


def test_an_explicit_index_is_asked_about_its_own(tmp_path: Path, public: IndexServer) -> None:
    """With its credential, about the names whose marker holds on the nodes, and about nothing else."""
    offer(tmp_path / "firm", "secret-sauce", "1.0.0", tag=LINUX_TAG, requires=["sample"])
    offer(tmp_path / "firm", "sample", "1.2.3", tag=LINUX_TAG)
    offer(tmp_path / "public", "other", "1.0.0", tag=LINUX_TAG)
    with serve_index(tmp_path / "firm", user="me", password=canary("explicit")) as firm:
        sources = (
            'secret-sauce = { index = "firm" }\nother = [{ index = "firm", marker = "sys_platform == \'darwin\'" }]\n'
        )
        project(tmp_path, ("firm", firm.url_with_credentials), sources=sources)
        indexes = found(tmp_path, UV_DEFAULT_INDEX=public.url)
        plan = planned(tmp_path, indexes, ("secret-sauce", "1.0.0"), ("sample", "1.2.3"), ("other", "1.0.0"))
        files = {name: decided(plan, name).file for name in ("secret-sauce", "sample", "other")}
        assert {name: file and file.index for name, file in files.items()} == {
            "secret-sauce": "firm",
            "sample": public_name(public),
            "other": public_name(public),
        }
        file = files["secret-sauce"]
        assert file is not None and not indexes.open_to_all(file)
        assert fetch(file, tmp_path / "into", indexes=indexes).is_file()
    assert not firm.asked_for("sample") and not firm.asked_for("other")
    assert not public.asked_for("secret-sauce")
    assert plan.problems == ()
    assert words_said(f"{plan} {indexes!r}") == set()
    assert words_beneath(tmp_path / "work") == {}


def public_name(index: IndexServer) -> str:
    """What an index without a name of its own is called."""
    return f"127-0-0-1-{index.port}"


def test_something_for_the_cluster_alone_comes_from_its_index(tmp_path: Path, public: IndexServer) -> None:
    """Also when it is not installed here."""
    offer(tmp_path / "firm", "secret-sauce", "1.0.0", tag=LINUX_TAG)
    with serve_index(tmp_path / "firm") as firm:
        project(tmp_path, ("firm", firm.url), sources='secret-sauce = { index = "firm" }')
        indexes = found(tmp_path, UV_DEFAULT_INDEX=public.url)
        plan = planned(tmp_path, indexes, ("sample", "1.2.3"), extras=("Secret_Sauce>=1",))
    assert decided(plan, "secret-sauce").file is not None
    assert not public.asked_for("secret-sauce")


def test_what_an_explicit_index_lacks_is_told(tmp_path: Path, public: IndexServer) -> None:
    """Whoever has a name on it wants no other; the index is asked why, with its own words."""
    with serve_index(tmp_path / "firm", fault="status", status=500) as firm:
        project(tmp_path, ("firm", firm.url), sources='sample = { index = "firm" }')
        indexes = found(tmp_path, UV_DEFAULT_INDEX=public.url)
        with pytest.raises(PlanError, match="500"):
            planned(tmp_path, indexes, ("sample", "1.2.3"))
    assert not public.asked_for("sample")


def test_an_address_with_a_token_is_written_nowhere(tmp_path: Path, public: IndexServer) -> None:
    """So such an index is not asked, and nor is any other about its names: somebody else may have them there."""
    for place in ("firm", "public"):
        offer(tmp_path / place, "secret-sauce", "1.0.0", tag=LINUX_TAG)
    offer(tmp_path / "public", "needs-it", "1.0.0", tag=LINUX_TAG, requires=["secret-sauce"])
    with serve_index(tmp_path / "firm", path_token=canary("path")) as firm:
        project(tmp_path, ("firm", firm.url), sources='secret-sauce = { index = "firm" }')
        indexes = found(tmp_path, UV_DEFAULT_INDEX=public.url)
        plan = planned(tmp_path, indexes, ("secret-sauce", "1.0.0"), ("sample", "1.2.3"))
        with pytest.raises(PlanError, match="can't be had for the cluster alone: it comes from the index firm"):
            planned(tmp_path, indexes, ("sample", "1.2.3"), extras=("secret-sauce",))
        transitive = planned(tmp_path, indexes, ("needs-it", "1.0.0"))
        both = found(tmp_path, UV_DEFAULT_INDEX=public.url, UV_INDEX=firm.url)
        assert decided(planned(tmp_path, both, ("secret-sauce", "1.0.0")), "secret-sauce").file is not None
    assert decided(plan, "secret-sauce").action is Action.DROP
    (message,) = said(plan, "not-asked")
    assert message.startswith("It comes from the index firm alone") and message.endswith("leaves it out.")
    (message,) = said(plan, "index-explicit")
    assert "UV_INDEX" in message
    assert decided(plan, "sample").version == "1.2.3"
    assert decided(transitive, "needs-it").file is not None and transitive.get("secret-sauce") is None
    assert not public.asked_for("secret-sauce")
    assert words_said(f"{plan} {indexes!r}") == set()
    assert words_beneath(tmp_path / "work") == {}


def test_the_build_for_processors_is_taken_from_its_index(
    tmp_path: Path, public: IndexServer, cpu: IndexServer
) -> None:
    """pip's extra index of PyTorch's is asked about torch alone; nothing of CUDA comes along."""
    with at_path("/mirror/whl/cpu", cpu) as url:
        indexes = found(tmp_path, PIP_INDEX_URL=public.url, PIP_EXTRA_INDEX_URL=url)
        plan = planned(tmp_path, indexes, ("torch", "2.5.1"), ("torchvision", "0.20.1"), ("sample", "1.2.3"))
    assert decided(plan, "torch").version == "2.5.1+cpu"
    assert decided(plan, "sample").version == "1.2.3"
    assert plan.get("nvidia-cublas") is None
    assert said(plan, "accelerator-libraries") == []
    assert not cpu.asked_for("sample")


def test_cudas_libraries_do_not_come_unsaid(tmp_path: Path, public: IndexServer) -> None:
    """Where no index has the build for processors, it is said what comes along, and what would help. Versions are exact
    all the same, so strict has nothing against it."""
    indexes = found(tmp_path, UV_DEFAULT_INDEX=public.url)
    plan = planned(tmp_path, indexes, ("torch", "2.5.1"), ("torchvision", "0.20.1"), strict=True)
    assert (decided(plan, "torch").version, decided(plan, "torch").installed) == ("2.5.1", "")
    assert decided(plan, "torch").reason.endswith("no index has 2.5.1+cpu")
    (message,) = said(plan, "accelerator-libraries")
    assert "(1 distribution)" in message and "torch 2.5.1+cpu" in message and "linux-64-cuda12.8" in message
    assert said(plan, "other-build") == []


@pytest.mark.parametrize("target", [CUDA, ARM], ids=["cuda", "aarch64"])
def test_where_the_ordinary_build_is_right_nothing_is_said(tmp_path: Path, public: IndexServer, target: Target) -> None:
    """Nodes with CUDA want its libraries; on other processors the ordinary build has none."""
    indexes = found(tmp_path, UV_DEFAULT_INDEX=public.url)
    plan = planned(tmp_path, indexes, ("torch", "2.5.1"), target=target)
    assert decided(plan, "torch").version == "2.5.1"
    assert said(plan, "accelerator-libraries") == []
    assert (plan.get("nvidia-cublas") is not None) == (target is CUDA)


def test_libraries_of_others_are_no_matter_of_torch(tmp_path: Path, public: IndexServer, cpu: IndexServer) -> None:
    """Where torch is the build for processors, nothing is advised about it."""
    offer(tmp_path / "public", "xgboost", "2.1.1", tag=LINUX_TAG, requires=["nvidia-cublas"])
    with at_path("/whl/cpu", cpu) as url:
        indexes = found(tmp_path, PIP_INDEX_URL=public.url, PIP_EXTRA_INDEX_URL=url)
        plan = planned(tmp_path, indexes, ("torch", "2.5.1"), ("xgboost", "2.1.1"))
    (message,) = said(plan, "accelerator-libraries")
    assert "torch" not in message


@pytest.mark.parametrize("here", ["2.5.1", "2.5.1+cpu", "2.5.1+cu130"])
def test_any_build_that_the_driver_serves_will_do(tmp_path: Path, public: IndexServer, here: str) -> None:
    """The index for CUDA 12.6 has no build for 12.8, and nodes with a driver for 12.8 run what it has."""
    offer(tmp_path / "cuda", "torch", "2.5.1+cu126", tag=LINUX_TAG)
    with serve_index(tmp_path / "cuda") as cuda, at_path("/whl/cu126", cuda) as url:
        indexes = found(tmp_path, PIP_INDEX_URL=public.url, PIP_EXTRA_INDEX_URL=url)
        plan = planned(tmp_path, indexes, ("torch", here), target=CUDA)
    assert decided(plan, "torch").version == "2.5.1+cu126"
    assert decided(plan, "torch").reason == "the same version, for linux-x86_64 with CUDA 12.8"
    assert said(plan, "other-build") == []


def test_what_comes_from_a_certain_index_is_not_overridden(tmp_path: Path, public: IndexServer) -> None:
    """uv would ask all others then, about a name of the firm's. So it is a conflict, which is explained; PyTorch's own
    distributions are everybody's."""
    offer(tmp_path / "firm", "secret-sauce", "1.0.0", tag=LINUX_TAG)
    offer(tmp_path / "public", "secret-sauce", "1.0.0", tag=LINUX_TAG)
    offer(tmp_path / "public", "picky", "1.0.0", tag=LINUX_TAG, requires=["secret-sauce>=2"])
    with serve_index(tmp_path / "firm") as firm:
        project(tmp_path, ("firm", firm.url), sources='secret-sauce = { index = "firm" }')
        indexes = found(tmp_path, UV_DEFAULT_INDEX=public.url)
        with pytest.raises(PlanError, match="requires secret-sauce>=2") as caught:
            planned(tmp_path, indexes, ("secret-sauce", "1.0.0"), ("picky", "1.0.0", "secret-sauce>=2"))
    assert "--ignore" in caught.value.todo
    assert not public.asked_for("secret-sauce")


def test_torch_that_others_do_not_accept_comes_from_any_index(
    tmp_path: Path, public: IndexServer, cpu: IndexServer
) -> None:
    """It stays as it is installed, with a warning, and is not said to come from PyTorch's index."""
    offer(tmp_path / "public", "picky", "1.0.0", tag=LINUX_TAG, requires=["torch>=9"])
    with at_path("/whl/cpu", cpu) as url:
        indexes = found(tmp_path, PIP_INDEX_URL=public.url, PIP_EXTRA_INDEX_URL=url)
        plan = planned(tmp_path, indexes, ("torch", "2.5.1"), ("picky", "1.0.0", "torch>=9"))
    file = decided(plan, "torch").file
    assert file is not None and file.url.startswith(public.root) and file.index == public_name(public)
    assert len(said(plan, "violated-requirement")) == 1


def test_the_newest_that_the_driver_serves(tmp_path: Path) -> None:
    """Of PyTorch's indexes, and of sources that a project's extras choose between."""
    urls = {label: f"https://wheels.example/whl/{label}" for label in ("cpu", "cu118", "cu126", "cu130", "rocm6.2")}
    indexes = found(tmp_path, PIP_EXTRA_INDEX_URL=" ".join(urls.values()))
    assert {name: url for name, (_, url) in indexes.assigned(CUDA).items()} == dict.fromkeys(
        ("torch", "torchaudio", "torchvision"), urls["cu126"]
    )
    assert indexes.assigned(LINUX)["torch"][1] == urls["cpu"]
    entries = ", ".join(f'{{ index = "{label}", extra = "{label}" }}' for label in ("cpu", "cu126"))
    project(tmp_path, ("cpu", urls["cpu"]), ("cu126", urls["cu126"]), sources=f"torch = [{entries}]")
    indexes = found(tmp_path)
    assert indexes.assigned(CUDA) == {"torch": ("cu126", urls["cu126"])}
    assert indexes.assigned(LINUX) == {"torch": ("cpu", urls["cpu"])}
