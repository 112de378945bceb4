"""Whether a Kubernetes API server would take these objects, without one; run by the servers' Python.

    python deploy_validate.py < cases.json

The ``DaskCluster`` is checked against the operator's own definition (whose pod templates are Kubernetes' own), the
others against Kubernetes' schemas, all of them strictly: a field that does not exist is a problem. Prints the problems
of each case.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml
from kubernetes_validate.utils import latest_version
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

SCHEMAS = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"


def main() -> None:
    """Print the problems of each case as JSON."""
    print(json.dumps([case_problems(case) for case in json.load(sys.stdin)]))


def case_problems(case: dict[str, Any]) -> list[str]:
    """The problems of one cluster, and of what the operator makes of it."""
    problems = cluster_problems(case["cluster"], Path(case["definitions"]))
    for item in case["objects"]:
        try:
            kubernetes_validate.validate(item, latest_version(), strict=True)
        except kubernetes_validate.ValidationError as error:
            problems.append(f"{item['kind']} {item['metadata']['name']}: {error.message}")
    return problems


def cluster_problems(cluster: dict[str, Any], definitions: Path) -> list[str]:
    """What the operator's definition of a ``DaskCluster`` says against this one."""
    [version] = yaml.safe_load((definitions / "daskcluster.yaml").read_text())["spec"]["versions"]
    [kubernetes] = sorted(SCHEMAS.glob(f"v{latest_version()}*-strict"))[-1:]

    def find(uri: str) -> Resource[Any]:
        """Where ``python://package/file`` is: the operator's templates, or Kubernetes' definitions."""
        if uri.endswith("templates.yaml"):
            contents = yaml.safe_load((definitions / "templates.yaml").read_text())
        else:
            contents = json.loads((kubernetes / "_definitions.json").read_text())
            contents["definitions"] = contents["$defs"]  # under this name the operator refers to them
        return DRAFT202012.create_resource(contents)

    schema = version["schema"]["openAPIV3Schema"]
    validator = jsonschema.Draft202012Validator(schema, registry=Registry(retrieve=find))  # type: ignore[call-arg]
    return [f"DaskCluster {error.json_path}: {error.message}" for error in validator.iter_errors(cluster)]


if __name__ == "__main__":
    main()
