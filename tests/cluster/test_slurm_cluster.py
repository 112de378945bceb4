"""SLURM clusters in a replica: real slurmctld, real nodes without Python, one of which can't read the client's store.

One client does everything it can in one cluster and says what it saw; the tests look at it. A second client is killed.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.canaries import MARK, canary, install, plant_tree
from support.canaries import url as url_with
from support.prefixes import clean_environ
from support.slurm import Slurm, missing_programs, running_slurm
from support.users import make_user_venv
from support.wheels import write_wheel

pytestmark = [pytest.mark.root, pytest.mark.registry]

SCRIPT = """
import json, os, re, shutil, socket, subprocess, sys, time
import msgspec
import loose
from distributed.core import rpc
from likewise import SLURMCluster
from likewise.events import Notice

SHARED, LOGS, WHEEL = sys.argv[1:]
OPTIONS = dict(cores=1, memory="1GB", processes=1, walltime="01:00:00", shared_folder=SHARED, log_directory=LOGS,
               scheduler_options={"host": "127.0.0.1", "dashboard_address": ":0"})
notices, seen = [], {}

class Reporter:
    def report(self, event):
        if isinstance(event, Notice):
            notices.append([event.subject, event.message])

def compute(x):
    import mine, numpy, pandas
    frame = pandas.DataFrame({"x": numpy.arange(x)})
    time.sleep(0.3)
    return socket.gethostname(), int(loose.double(frame["x"].sum())), mine.__name__

def look():
    processes = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline") as line, open(f"/proc/{pid}/environ") as variables:
                processes.append([line.read().replace("\\0", " "), variables.read()])
        except OSError:
            pass
    path = ":".join(p for p in os.environ["PATH"].split(":") if not p.startswith(sys.prefix))
    return {"host": socket.gethostname(), "prefix": sys.prefix, "processes": processes,
            "pythons": [name for name in ("python3", "python") if shutil.which(name, path=path)],
            "environ": dict(os.environ), "keys": sorted(k for k in os.environ if k.endswith("__KEY"))}

def place(dask_worker):
    return dask_worker.name, sys.prefix

def said(*argv):
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout

def jobs():
    return said("squeue", "-h", "-o", "%T").split()

def until(what, seconds=60):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)

def submit_old_script(cluster):
    # A script as the cluster made it last week, when another manifest was current.
    old, count = re.subn("--manifest [0-9a-f]+", "--manifest " + "0" * 64, cluster.job_script())
    assert count == 1
    with open(f"{LOGS}/old.sh", "w") as script:
        script.write(old.replace("--name dummy-name", "--name old"))
    return said("sbatch", f"{LOGS}/old.sh").split()[-1]

def status(cluster):
    async def ask():
        hub = cluster.scheduler.handlers["likewise_current"]()["hub"]
        async with rpc(hub, connection_args=cluster.security.get_connection_args("client")) as found:
            return await found.hub_status()
    return cluster.sync(ask)

def work(cluster):
    client = cluster.get_client()
    adaptive = cluster.adapt(minimum_jobs=3, maximum_jobs=3, interval="200ms")
    client.wait_for_workers(3, timeout=120)
    adaptive.stop()
    seen["computed"] = client.gather(client.map(compute, range(10, 19)))
    seen["nodes"] = list(client.run(look).values())
    cluster.scale(4)  # there are three nodes
    until(lambda: sorted(jobs()) == ["PENDING", "RUNNING", "RUNNING", "RUNNING"])
    seen["verified"] = msgspec.to_builtins(cluster.verify())
    seen["hub"] = status(cluster)
    seen["script"] = cluster.job_script()
    seen["scontrol"] = said("scontrol", "show", "job", "-d")
    numbers = re.findall(r"JobId=(\\d+)", seen["scontrol"])
    seen["batch"] = [said("scontrol", "write", "batch_script", n, "-") for n in numbers]
    folder = f"{SHARED}/likewise-{cluster._cluster_id}"
    seen["modes"] = {name: oct(os.stat(f"{folder}/{name}").st_mode & 0o777) for name in [".", *os.listdir(folder)]}
    with open(f"{folder}/environ") as variables:
        seen["variables"] = variables.read()
    security = cluster.security
    seen["keys"] = {r: getattr(security, f"tls_{r}_key").splitlines()[1] for r in ("scheduler", "worker", "client")}

    scattered = client.scatter(list(range(30)), broadcast=False)
    cluster.scale(2)
    until(lambda: len(client.scheduler_info(n_workers=-1)["workers"]) == 2 and len(jobs()) == 2)
    seen["kept"] = sum(client.gather(scattered))
    old = submit_old_script(cluster)
    client.wait_for_workers(3, timeout=60)
    places = list(client.run(place).values())
    seen["old"] = [prefix for name, prefix in places if name == "old"]
    seen["current"] = sorted({prefix for name, prefix in places if name != "old"})
    said("scancel", old)
    update(cluster, client)
    seen["notices"] = list(notices)
    client.close()

def update(cluster, client):
    # A package is installed, then a loaded module is edited; there is room for the successor of one worker.
    cluster.scale(1)
    until(lambda: len(client.scheduler_info(n_workers=-1)["workers"]) == 1 and len(jobs()) == 1)
    worker = list(client.scheduler_info(n_workers=-1)["workers"])
    subprocess.run([sys.executable, "-m", "uv", "pip", "install", "-q", "--python", sys.executable, WHEEL], check=True)
    report = cluster.sync()
    value = client.submit(lambda: __import__("added").VALUE).result(timeout=30)
    seen["added"] = [value, report.layers, report.workers_replaced]
    with open("loose.py", "w") as module:
        module.write("def double(x):\\n    return 20 * x\\n")
    kept = client.scatter(list(range(5)))
    report = cluster.sync(timeout=60)
    now = list(client.scheduler_info(n_workers=-1)["workers"])
    seen["edited"] = [client.submit(compute, 3).result(timeout=30)[1], sum(client.gather(kept)), worker == now]
    seen["verified again"] = msgspec.to_builtins(cluster.verify().differences)
    seen["new script"] = cluster.environment.id in cluster.job_script()

def fail(**options):
    notices.clear()
    with SLURMCluster(1, reporter=Reporter(), **{**OPTIONS, **options}) as cluster:
        until(lambda: any(subject for subject, _ in notices))
    return next([subject, message] for subject, message in notices if subject)

if __name__ == "__main__":
    with SLURMCluster(reporter=Reporter(), **OPTIONS) as cluster:
        seen["id"] = cluster.environment.id
        work(cluster)
        folder = f"{SHARED}/likewise-{cluster._cluster_id}"
    until(lambda: not jobs())
    seen["folder left"] = os.path.exists(folder)
    seen["no python"] = fail(package_sync=False)
    seen["prologue"] = fail(package_sync=False, job_script_prologue=["echo the module is missing >&2; exit 3"])
    seen["killed"] = fail(package_sync=False, job_script_prologue=["kill -9 $$"])
    try:
        SLURMCluster(1, **{**OPTIONS, "job_extra_directives": ["--partition=nowhere"]})
    except Exception as error:
        seen["refused"] = [type(error).__name__, str(error)]
    until(lambda: not jobs())
    print(json.dumps(seen))
"""
KILLED = """
import json, sys, time
from likewise import SLURMCluster

SHARED, LOGS, _ = sys.argv[1:]

if __name__ == "__main__":
    cluster = SLURMCluster(2, cores=1, memory="1GB", processes=1, shared_folder=SHARED, log_directory=LOGS,
                           scheduler_options={"host": "127.0.0.1", "dashboard_address": ":0"})
    cluster.get_client().wait_for_workers(2, timeout=60)
    print(json.dumps({"cluster": cluster._cluster_id}), flush=True)
    time.sleep(600)
"""
VARIABLES = {
    "DEPARTMENT_TOKEN": canary("variable"),
    "UV_DEFAULT_INDEX": url_with("index"),
    "DASK_ARCHIVE__PASSWORD": canary("configured"),
    "MY_VARIABLE": "harmless",
}


class Client:
    """A user at the machine where jobs are submitted."""

    def __init__(self, root: Path) -> None:
        self.shared, self.logs = root / "shared by all", root / "logs"
        self.cache, self.slurm, self.work = root / "cache", root / "slurm", root / "work"
        for folder in (self.shared, self.logs, self.slurm, self.work):
            folder.mkdir()
        self.cache.mkdir(mode=0o700)
        self.python = make_user_venv(root / "venv", "numpy", "pandas", "dask-jobqueue")
        self.wheel = write_wheel(root, {"added.py": b"VALUE = 42\n"}, name="added")
        plant_tree(root / "mine", "mine", fails=False)
        site = next(root.glob("venv/lib/python3*/site-packages"))
        url = {"url": (root / "mine").as_uri(), "dir_info": {"editable": True}}
        install(site, "mine", {"mine.pth": f"{root / 'mine'}\n"}, direct_url=url)
        (self.work / "loose.py").write_text("def double(x):\n    return 2 * x\n")
        (self.work / "script.py").write_text(SCRIPT)
        (self.work / "killed.py").write_text(KILLED)

    def start(self, slurm: Slurm, script: str) -> subprocess.Popen[str]:
        """Run a script."""
        return subprocess.Popen(
            [str(self.python), script, str(self.shared), str(self.logs), str(self.wheel)],
            cwd=self.work,
            env=clean_environ(LIKEWISE_CACHE=str(self.cache), **slurm.environ, **VARIABLES),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def outputs(self) -> str:
        """What the jobs have said."""
        return "\n".join(path.read_text(errors="replace") for path in sorted(self.logs.iterdir()))


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Client:
    """Made once."""
    missing = missing_programs()
    if missing:
        pytest.skip(f"needs the Debian packages slurm-wlm and munge: {', '.join(missing)}")
    return Client(tmp_path_factory.mktemp("slurm"))


@pytest.fixture(scope="module")
def slurm(client: Client) -> Iterator[Slurm]:
    """Three nodes; the last one can't read the client's store."""
    everywhere = [client.shared, client.logs]
    with running_slurm(client.slurm, {"n1": [*everywhere, client.cache], "n2": [*everywhere, client.cache],
                                      "n3": everywhere}) as found:  # fmt: skip
        yield found


@pytest.fixture(scope="module")
def seen(client: Client, slurm: Slurm) -> dict[str, Any]:
    """What the client saw, and after it: what is left on the nodes."""
    process = client.start(slurm, "script.py")
    try:
        out, err = process.communicate(timeout=540)
    finally:
        process.kill()
    assert process.returncode == 0, f"{err[-6000:]}\n{client.outputs()[-6000:]}"
    document: dict[str, Any] = json.loads(out.splitlines()[-1])
    document["left"] = left_on_nodes(slurm)
    document["said"] = err
    return document


def left_on_nodes(slurm: Slurm, seconds: float = 30) -> list[str]:
    """The processes that are left on the nodes after at most this time (agents end by themselves), but for SLURM's."""
    deadline = time.monotonic() + seconds
    while True:
        shown = "".join(slurm.on_node(node, "ps -eo stat=,args=") for node in slurm.nodes)
        own = ("slurmd", "bash -c", "sh -c ps", "ps -eo", "init")
        lines = [line.split(None, 1)[1] for line in shown.splitlines() if not line.startswith("Z")]
        left = [line for line in lines if not line.startswith(own)]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.5)


def test_it_computes_on_nodes_without_python(seen: dict[str, Any]) -> None:
    """Tasks use numpy, pandas, an editable package and a loose module on three nodes that have no Python."""
    assert {(total, name) for _, total, name in seen["computed"]} == {(n * (n - 1), "mine") for n in range(10, 19)}
    assert {node["host"] for node in seen["nodes"]} == {"n1", "n2", "n3"}
    assert [node["pythons"] for node in seen["nodes"]] == [[], [], []]


def test_verify(seen: dict[str, Any], slurm: Slurm) -> None:
    """Every node is verified under its own name, and none differs."""
    report = seen["verified"]
    assert report["differences"] == []
    assert [node["node"] for node in report["nodes"]] == ["n1", "n2", "n3"]
    assert {node["manifest"] for node in report["nodes"]} == {seen["id"]}


def test_layers_reach_every_node(seen: dict[str, Any]) -> None:
    """The node that can't read the store gets its layers over the cluster's connections, the others from the store."""
    received = {node["name"]: sum(node["bytes"].values()) for node in seen["hub"]["nodes"].values()}
    assert received.pop("n3") > 10_000_000
    assert received.pop("n1") + received.pop("n2") == 0


def test_nothing_of_the_submitter_reaches_a_node(seen: dict[str, Any]) -> None:
    """No variable of the submitter's is on a node, in whatever process: neither harmless ones nor credentials."""
    for node in seen["nodes"]:
        assert not {*VARIABLES, "LIKEWISE_CACHE"} & node["environ"].keys()
        assert MARK not in str(node["processes"])
        assert "harmless" not in str(node["processes"])


def test_jobs_say_nothing_secret(seen: dict[str, Any], client: Client) -> None:
    """Job scripts, what SLURM shows of them, command lines and outputs hold no credential and no key."""
    command_lines = [line for node in seen["nodes"] for line, _ in node["processes"]]
    shown = [seen["script"], seen["scontrol"], *seen["batch"], *command_lines, client.outputs(), seen["said"]]
    assert "distributed.cli.dask_worker" in seen["script"] and len(seen["batch"]) == 4
    assert any("distributed.cli.dask_worker" in line for line in command_lines)
    for text in shown:
        assert MARK not in text
        assert "PRIVATE KEY" not in text
        assert not any(key in text for key in seen["keys"].values())


def test_a_node_has_the_workers_key_alone(seen: dict[str, Any]) -> None:
    """The file that jobs read holds the worker's key and no other, and only its owner can read it or its folder."""
    assert seen["keys"]["worker"] in seen["variables"]
    assert seen["keys"]["scheduler"] not in seen["variables"]
    assert seen["keys"]["client"] not in seen["variables"]
    assert MARK not in seen["variables"]
    assert seen["modes"]["."] == "0o700"
    assert {int(mode, 8) & 0o077 for mode in seen["modes"].values()} == {0}


def test_the_job_script(seen: dict[str, Any]) -> None:
    """SLURM is told to hand on no variables; a node looks for a place itself and asks what to run."""
    lines = seen["script"].splitlines()
    assert "#SBATCH --export=NONE" in lines and "#SBATCH -t 01:00:00" in lines
    assert "--cache auto" in lines[-1] and "--ask" in lines[-1] and "--death-timeout 300" in lines[-1]


def test_a_script_of_last_week(seen: dict[str, Any]) -> None:
    """A job whose script names another manifest than the current one runs in the current one."""
    assert seen["old"] == seen["current"]
    assert seen["current"][0].endswith(seen["id"][:16])


def test_scaling_down_keeps_the_data(seen: dict[str, Any]) -> None:
    """What was scattered to a worker whose job is cancelled is still there."""
    assert seen["kept"] == sum(range(30))


def test_sync(seen: dict[str, Any]) -> None:
    """What is installed comes to the running worker; an edited module with a new job, which takes over the data."""
    assert seen["added"] == [42, ["added"], []]
    assert seen["edited"] == [60, 10, False]
    assert seen["verified again"] == []
    assert seen["new script"]


def test_a_pending_job_is_no_failure(seen: dict[str, Any]) -> None:
    """A job that waits in the queue is not complained about; nothing else was either."""
    assert [notice for notice in seen["notices"] if "stay on the client" not in notice[1]] == []


def test_failed_jobs_tell_why(seen: dict[str, Any], client: Client) -> None:
    """A job that fails before its worker joins is a warning that names job and node and has its last words."""
    node, message = seen["no python"]
    assert node in ("n1", "n2", "n3")
    assert "(SLURMCluster-0) ended before its worker joined (exit code 127)" in message
    assert "python: No such file" in message
    node, message = seen["prologue"]
    assert message.startswith("The job ") and "(exit code 3)" in message and "the module is missing" in message


def test_a_job_that_cannot_tell(seen: dict[str, Any]) -> None:
    """A job that ends without a word (killed, or on a node that sees no shared folder) is missed, and told of."""
    assert "is over, and its worker has not joined" in seen["killed"][1]


def test_a_refused_job(seen: dict[str, Any]) -> None:
    """What sbatch says of a job that it refuses is the error of the cluster's start."""
    kind, text = seen["refused"]
    assert kind == "ClusterError"
    assert "sbatch refused the job" in text and "invalid partition" in text


def test_nothing_is_left(seen: dict[str, Any]) -> None:
    """After the end no process is left on any node, and the jobs' folder is gone."""
    assert seen["left"] == []
    assert not seen["folder left"]


def test_a_killed_client(client: Client, slurm: Slurm, seen: dict[str, Any]) -> None:
    """When the client is killed its workers, agents and hub end, and nobody else can read what it left."""
    process = client.start(slurm, "killed.py")
    assert process.stdout
    try:
        cluster = json.loads(process.stdout.readline())["cluster"]
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    folder = client.shared / f"likewise-{cluster}"
    assert left_on_nodes(slurm, 60) == []
    assert not subprocess.run(["pgrep", "-f", f"cluster {cluster}"], capture_output=True, check=False).stdout
    assert folder.stat().st_mode & 0o777 == 0o700 and (folder / "environ").stat().st_mode & 0o777 == 0o600
