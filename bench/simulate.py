"""How long until every node of a cluster has everything: the scheduling code is real, the network is not.

`likewise.transport.tracker.Tracker` decides; what it decides happens in a fluid model of a network: every transfer
runs at the smaller of its fair shares of the source's uplink and the taker's downlink, and starts one round trip to the
hub and one to the source after the event that let it start. Its sha256 is known when it ends (agents compare it with
the one that the hub vouches for), so the node is a source from then on; the node is complete when its unpacker, which
works on one layer at a time, is done with all. Time goes to the next end of a transfer, but at least `--step-ms`
further, so the figures are exact to some steps.

Beside it: every node pulls everything from one store with the client's uplink, or with 10 Gbit/s, one after the other
layer, sharing the uplink fairly. That needs no simulation. The lower bound is what the slowest of these alone takes:
the client's uplink, a node's downlink, its unpacker, and all uplinks together.

Needs numpy. The layers are those of `bench/w160.txt` outside the kit; nodes have the kit and nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from likewise.transport.ledger import CLIENT
from likewise.transport.tracker import Tracker, Transfer

REPOSITORY = Path(__file__).resolve().parent.parent
LAYERS = Path(__file__).with_name("w160_layers.json")
MBIT = 1e6 / 8  # bytes per second
STORE_MBIT = 10_000


@dataclass(frozen=True)
class Network:
    """Rates in bytes per second, times in seconds."""

    client_up: float
    node_up: float
    node_down: float
    unpack: float
    latency: float
    step: float
    slow: float  # this share of the nodes …
    slow_factor: float  # … has a link so many times slower


def main() -> int:
    """Simulate each number of nodes; print the table, write JSON and plot."""
    arguments = parse_arguments()
    layers = [(name, int(size)) for name, size in json.loads(arguments.layers.read_text())]
    if arguments.order == "size":  # as agents do
        layers.sort(key=lambda layer: -layer[1])
    network = network_of(arguments)
    rows = []
    for count in arguments.nodes:
        rows.append(row(count, layers, network, arguments))
        print(as_line(rows[-1]), file=sys.stderr, flush=True)
    value = {"parameters": parameters(arguments, layers), "rows": rows}
    print(as_table(value))
    if arguments.json:
        arguments.json.write_text(json.dumps(value, indent=1) + "\n")
    if arguments.svg:
        from plot import log_log_plot

        arguments.svg.write_text(log_log_plot(curves(rows), x="nodes", y="seconds until all nodes are complete"))
    return 0


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--nodes", type=int, nargs="+", default=[1, 10, 100, 1000, 10_000], metavar="N")
    add("--client-mbit", type=float, default=100, help="the client's uplink, Mbit/s (default 100)")
    add("--node-mbit", type=float, default=1000, help="a node's uplink and its downlink, Mbit/s (default 1000)")
    add("--latency-ms", type=float, default=1, help="one way, between any two machines (default 1)")
    add("--unpack", type=float, default=70, help="archive MB that a node unpacks in a second (default 70)")
    add("--slow", type=float, default=0, help="share of the nodes whose link is slow (default 0)")
    add("--slow-factor", type=float, default=10, help="so many times slower (default 10)")
    add("--uploads", type=int, help="transfers that a node gives at a time (default: the tracker's)")
    add("--downloads", type=int, help="transfers that a node takes at a time (default: the tracker's)")
    add("--order", choices=["size", "manifest"], default="size", help="in which nodes want layers")
    add("--step-ms", type=float, default=2, help="the model's resolution (default 2)")
    add("--layers", type=Path, default=LAYERS, help="JSON: a list of [name, bytes]")
    add("--json", type=Path, metavar="FILE")
    add("--svg", type=Path, metavar="FILE")
    return parser.parse_args()


def network_of(arguments: argparse.Namespace) -> Network:
    """The command line in bytes and seconds."""
    return Network(
        client_up=arguments.client_mbit * MBIT,
        node_up=arguments.node_mbit * MBIT,
        node_down=arguments.node_mbit * MBIT,
        unpack=arguments.unpack * 1e6,
        latency=arguments.latency_ms / 1e3,
        step=arguments.step_ms / 1e3,
        slow=arguments.slow,
        slow_factor=arguments.slow_factor,
    )


def row(count: int, layers: list[tuple[str, int]], network: Network, arguments: argparse.Namespace) -> dict[str, Any]:
    """All figures for one number of nodes."""
    slots = {k: v for k in ("uploads", "downloads") if (v := getattr(arguments, k)) is not None}
    swarm = Swarm(count, layers, network, slots)
    started = time.process_time()
    swarm.run()
    took = time.process_time() - started
    ends = np.sort(swarm.complete)
    sizes = [size for _, size in layers]
    return {
        "nodes": count,
        "all": round(float(ends[-1]), 2),
        "median": round(float(ends[len(ends) // 2]), 2),
        "bound": round(lower_bound(count, sizes, network), 2),
        "one store, client's uplink": round(pull(count, sizes, network, network.client_up), 2),
        "one store, 10 Gbit/s": round(pull(count, sizes, network, STORE_MBIT * MBIT), 2),
        "client bytes": swarm.client_bytes,
        "hub bytes": swarm.hub_bytes,
        "events": swarm.events,
        "events per cpu second": round(swarm.events / swarm.scheduling),
        "cpu seconds": round(took, 1),
    }


class Swarm:
    """The model: transfers as arrays, unpackers as queues, and the tracker that is asked after every step."""

    def __init__(self, count: int, layers: list[tuple[str, int]], network: Network, slots: dict[str, int]) -> None:
        self.network, self.count = network, count
        self.sizes = dict(layers)
        self.names = [f"node{i}" for i in range(count)] + ["hub", CLIENT]
        self.number = {name: i for i, name in enumerate(self.names)}
        self.up = np.full(count + 2, network.node_up)
        self.down = np.full(count + 2, network.node_down)
        slow = np.arange(count)[:: round(1 / network.slow)] if network.slow else np.arange(0)
        self.up[slow] /= network.slow_factor
        self.down[slow] /= network.slow_factor
        self.up[self.number[CLIENT]] = network.client_up
        self.remaining, self.ready = np.zeros(0), np.zeros(0)
        self.source, self.taker = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        self.transfers: list[Transfer] = []
        self.complete = [0.0] * count  # when the unpacker has nothing left
        self.missing = [len(layers)] * count
        self.now, self.events, self.scheduling = 0.0, 0, 0.0
        self.client_bytes = self.hub_bytes = 0
        self.tracker = Tracker("hub", **slots)

    def run(self) -> None:
        """Until nothing happens any more; everybody must have everything then."""
        order = list(self.sizes)
        started = time.process_time()
        for name in self.names[: self.count]:
            self.tracker.joined(name)
            self.tracker.want(name, order)
        self._begin()
        self.scheduling += time.process_time() - started
        while self.transfers:
            self._step()
        assert not any(self.missing), "the tracker left somebody without something"

    def _step(self) -> None:
        rate = self._rates()
        with np.errstate(divide="ignore", invalid="ignore"):
            ends = np.where(rate > 0, self.remaining / rate, self.ready - self.now)
        wait = max(float(ends.min()), self.network.step)
        self.now += wait
        self.remaining -= rate * wait
        finished = np.flatnonzero(self.remaining <= 1e-6)
        done = [self.transfers[i] for i in finished]
        if len(finished):
            keep = self.remaining > 1e-6
            self.remaining, self.ready = self.remaining[keep], self.ready[keep]
            self.source, self.taker = self.source[keep], self.taker[keep]
            self.transfers = [t for t, kept in zip(self.transfers, keep.tolist(), strict=True) if kept]
        self._tell(done)

    def _rates(self) -> np.ndarray:
        active = self.ready <= self.now
        gives = np.bincount(self.source[active], minlength=len(self.up))
        takes = np.bincount(self.taker[active], minlength=len(self.up))
        share = np.minimum(
            self.up[self.source] / np.maximum(gives[self.source], 1),
            self.down[self.taker] / np.maximum(takes[self.taker], 1),
        )
        return np.where(active, share, 0.0)

    def _tell(self, done: list[Transfer]) -> None:
        """Tell the tracker what ended, and start what it says."""
        started = time.process_time()
        for transfer in done:
            self.tracker.have(transfer.node, transfer.digest)
            self._count(transfer)
        self._begin()
        self.scheduling += time.process_time() - started

    def _count(self, transfer: Transfer) -> None:
        size, node = self.sizes[transfer.digest], self.number[transfer.node]
        self.events += 1
        self.client_bytes += size if transfer.source == CLIENT else 0
        self.hub_bytes += size if transfer.source == "hub" else 0
        if node < self.count:  # the hub passes on, and unpacks nothing
            self.complete[node] = max(self.now, self.complete[node]) + size / self.network.unpack
            self.missing[node] -= 1

    def _begin(self) -> None:
        begun = self.tracker.begin()
        if not begun:
            return
        self.transfers += begun
        self.remaining = np.append(self.remaining, [float(self.sizes[t.digest]) for t in begun])
        self.ready = np.append(self.ready, np.full(len(begun), self.now + 4 * self.network.latency))
        self.source = np.append(self.source, [self.number[t.source] for t in begun])
        self.taker = np.append(self.taker, [self.number[t.node] for t in begun])


def pull(count: int, sizes: list[int], network: Network, uplink: float) -> float:
    """Seconds until `count` nodes have pulled everything from one store, sharing its uplink fairly."""
    rate = min(network.node_down, uplink / count)
    arrived = unpacked = 2 * network.latency
    for size in sizes:
        arrived += size / rate
        unpacked = max(unpacked, arrived) + size / network.unpack
    return unpacked


def lower_bound(count: int, sizes: list[int], network: Network) -> float:
    """No schedule whatever is faster than the slowest of these."""
    total = sum(sizes)
    everybody = (count + 1) * network.node_up  # the hub gives, too
    return max(total / network.client_up, total / network.node_down, total / network.unpack, count * total / everybody)


def parameters(arguments: argparse.Namespace, layers: list[tuple[str, int]]) -> dict[str, Any]:
    """What the figures depend on."""
    kept = {k: v for k, v in vars(arguments).items() if k not in ("json", "svg", "layers", "nodes")}
    machine = {"cores": os.cpu_count(), "python": platform.python_version()}
    return {**kept, "layers": len(layers), "bytes": sum(size for _, size in layers), "machine": machine}


def curves(rows: list[dict[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """What the plot shows."""
    names = {
        "one store, client's uplink": "one store, client's uplink",
        "one store, 10 Gbit/s": "one store, 10 Gbit/s",
        "all": "likewise",
        "bound": "lower bound",
    }
    return {title: [(r["nodes"], r[key]) for r in rows] for key, title in names.items()}


def as_line(figures: dict[str, Any]) -> str:
    """One line of the table, as Markdown."""
    one, ten = figures["one store, client's uplink"], figures["one store, 10 Gbit/s"]
    return (
        f"| {figures['nodes']:,} | {figures['median']:,.1f} | {figures['all']:,.1f} | {figures['bound']:,.1f} "
        f"| {one:,.0f} | {ten:,.0f} | {figures['client bytes'] / 1e6:,.0f} | {figures['hub bytes'] / 1e9:,.1f} "
        f"| {figures['events']:,} | {figures['events per cpu second']:,} | {figures['cpu seconds']} |"
    )


def as_table(value: dict[str, Any]) -> str:
    """The figures as a Markdown table."""
    head = (
        "| nodes | median node, s | all nodes, s | lower bound, s | one store, client's uplink, s "
        "| one store, 10 Gbit/s, s | client gave, MB | hub gave, GB | events | events per CPU s | CPU s in all |"
    )
    return "\n".join([head, "|---" * 11 + "|", *(as_line(r) for r in value["rows"])])


if __name__ == "__main__":
    sys.exit(main())
