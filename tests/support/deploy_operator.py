"""What dask-kubernetes' operator makes of a ``DaskCluster``, by its own functions; run by the user's Python.

python deploy_operator.py < cluster.json > objects.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import dask_kubernetes
from dask_kubernetes.operator.controller import controller


def without_nulls(value: Any) -> Any:
    """`value` as the API server gives it to an operator: what is null is not there."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def main() -> None:
    """Print the scheduler's deployment and service, two workers' deployments, and where the definitions are."""
    cluster = without_nulls(json.load(sys.stdin))
    name, scheduler, worker = cluster["metadata"]["name"], cluster["spec"]["scheduler"], cluster["spec"]["worker"]
    objects = [
        controller.build_scheduler_deployment_spec(name, scheduler["spec"], {}, {}),
        controller.build_scheduler_service_spec(name, scheduler["service"], {}, {}),
        *(
            controller.build_worker_deployment_spec(f"{name}-default", "default", name, uuid, worker["spec"], {}, {})
            for uuid in ("a1b2c3", "d4e5f6")
        ),
    ]
    definitions = Path(dask_kubernetes.__file__).parent / "operator" / "customresources"
    print(json.dumps({"cluster": cluster, "objects": objects, "definitions": str(definitions)}))


if __name__ == "__main__":
    main()
