"""The dask-kubernetes example: valid for the operator and for Kubernetes, and its commands start what they should."""

from __future__ import annotations

import copy
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.deploy import EXAMPLES, ONLY, Deployers, deployers, document  # noqa: F401
from support.prefixes import clean_environ

pytestmark = [pytest.mark.registry, pytest.mark.root]

SUPPORT = Path(__file__).parents[1] / "support"
IMAGE = "registry.example.org/likewise/me:1"


def ask(*argv: str | Path, given: str) -> str:
    """What a program prints that is given something on its standard input."""
    done = subprocess.run(
        [str(word) for word in argv],
        input=given, env=clean_environ(), capture_output=True, text=True, timeout=420, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-6000:]
    return done.stdout


def objects(deployers: Deployers, bundle: Path, *arguments: str) -> dict[str, Any]:  # noqa: F811
    """What the operator makes of the example's cluster."""
    only = [f"--only={name}" for name in ONLY]
    cluster = deployers.run(EXAMPLES / "kubernetes/cluster.py", bundle, *arguments, *only)
    made: dict[str, Any] = json.loads(ask(deployers.python, SUPPORT / "deploy_operator.py", given=cluster))
    return made


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the example writes its bundle."""
    return tmp_path_factory.mktemp("kubernetes") / "bundle"


@pytest.fixture(scope="module")
def with_image(deployers: Deployers, bundle: Path) -> dict[str, Any]:  # noqa: F811
    """A cluster whose bundle comes in an image."""
    return objects(deployers, bundle, IMAGE)


def problems(deployers: Deployers, *cases: dict[str, Any]) -> list[list[str]]:  # noqa: F811
    """What an API server would say against each of them."""
    found: list[list[str]] = json.loads(ask(deployers.servers, SUPPORT / "deploy_validate.py", given=json.dumps(cases)))
    return found


def misspelt(made: dict[str, Any], *path: str | int) -> dict[str, Any]:
    """A copy with a field of the first init container's misspelt, in the pod at `path`."""
    wrong = copy.deepcopy(made)
    pod: Any = wrong
    for step in path:
        pod = pod[step]
    pod["initContainers"][0]["volumemounts"] = pod["initContainers"][0].pop("volumeMounts")
    return wrong


def test_descriptions_are_valid_and_mistakes_are_noticed(
    deployers: Deployers,  # noqa: F811
    bundle: Path,
    with_image: dict[str, Any],
) -> None:
    """The operator and Kubernetes take an image and a volume claim with the bundle, and refuse a misspelt field."""
    made = objects(deployers, bundle)
    in_cluster = misspelt(made, "cluster", "spec", "worker", "spec")
    in_deployment = misspelt(made, "objects", 0, "spec", "template", "spec")
    image, claim, *wrong = problems(deployers, with_image, made, in_cluster, in_deployment)
    assert image == claim == []
    assert all(any("volumemounts" in problem for problem in some) for some in wrong)


def test_pods_without_python_run_the_replica(
    deployers: Deployers,  # noqa: F811
    bundle: Path,
    with_image: dict[str, Any],
    tmp_path: Path,
) -> None:
    """Init containers bring and unpack the bundle; then a scheduler whose probe succeeds and two workers compute."""
    made = with_image
    own = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    kubelet = [*own, deployers.servers, SUPPORT / "deploy_kubelet.py", tmp_path, bundle]
    hidden = [*deployers.origins, EXAMPLES.parent / "src"]
    client = [deployers.python, SUPPORT / "deploy_client.py"]
    try:
        seen = document(ask(*kubelet, *hidden, "--", *client, given=json.dumps(made)))
    except AssertionError as error:
        logs = "\n".join(f"== {log.name}\n{log.read_text()[-2000:]}" for log in sorted(tmp_path.glob("*.log")))
        raise AssertionError(f"{error}\n{logs}") from None
    deployments = [item["metadata"]["name"] for item in made["objects"] if item["kind"] == "Deployment"]
    inits = ("likewise-bundle", "likewise-prefix")
    roles = {name: "scheduler" if name.endswith("-scheduler") else "worker" for name in deployments}
    assert seen["steps"] == [f"{name}/{step}" for name in deployments for step in (*inits, roles[name])]
    computed = seen["client"]
    assert computed["scheduler"].startswith("/opt/likewise/cache/node/prefixes/")
    assert computed["workers"] == [computed["scheduler"]] * 2
    assert computed["names"] == sorted(name for name in deployments if roles[name] == "worker")
    assert [result[0] for result in computed["results"]] == [2 * x for x in range(8)]
    for pod in (item["spec"]["template"]["spec"] for item in made["objects"] if item["kind"] == "Deployment"):
        for container in pod["containers"]:
            assert container.get("livenessProbe") is None or container["livenessProbe"]["initialDelaySeconds"] == 15
