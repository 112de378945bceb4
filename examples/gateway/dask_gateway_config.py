"""Configuration of a dask-gateway server whose users bring their own environments with likewise.

    dask-gateway-server --config dask_gateway_config.py

The server needs no likewise, and no Dask: a user hands over the command prefix of a bundle, and scheduler and workers
are started with it. They run as that user (or in that user's pods), so a user can't do more with a prefix than with a
task. This file uses the local back end; the options below are the same for the others.
"""

import os
import shlex

from dask_gateway_server.options import Options, String

c = get_config()  # noqa: F821 - traitlets gives it to this file


def with_prefix(options):
    """Start scheduler and workers in the user's replica, or as ever where no prefix was given."""
    prefix = shlex.split(options.likewise)
    if not prefix:
        return {}
    return {
        "scheduler_cmd": [*prefix, "-m", "distributed.cli.dask_scheduler"],
        "worker_cmd": [*prefix, "-m", "distributed.cli.dask_worker"],
    }


c.Backend.cluster_options = Options(
    String("likewise", default="", label="Command prefix of a likewise bundle"), handler=with_prefix
)

# The first start on a machine unpacks the environment. What is not ready then is started again, and goes on there.
c.DBBackendBase.cluster_start_timeout = 300
c.DBBackendBase.worker_start_timeout = 300

# Processes get a PATH and nothing else of the server's own environment.
c.LocalBackend.inherited_environment = ["PATH", "LANG"]

# For the example: everything on this machine, without authentication and without sudo. Yours will differ.
port = os.environ.get("GATEWAY_PORT", "8000")
c.DaskGateway.backend_class = "dask_gateway_server.backends.local.UnsafeLocalBackend"
c.DaskGateway.address = "127.0.0.1:0"
c.Proxy.address = f"127.0.0.1:{port}"
c.DaskGateway.authenticator_class = "dask_gateway_server.auth.SimpleAuthenticator"
