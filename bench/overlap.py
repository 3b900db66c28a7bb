#!/usr/bin/env python3
"""A step on two hosts, by two builds in turn: what is gained where sums travel while the towers' gradients are computed.

usage: bench/overlap.py OUT --before PROGRAM --after PROGRAM [--rates local,10gbit,1gbit] [--rounds N] [--steps N]

PROGRAM is an ams that was built with the feature `mpi`. Two network namespaces stand for the hosts, as in .ci/two-hosts: one
process of one thread on each, a cable between them that carries so much, and 50 us there; `local` is two processes that share
memory. Needs root, Linux, iproute2 with tc, and Open MPI 4. Have nothing else run meanwhile.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from peers.program import around

HOSTS = ["ams-a", "ams-b"]
ENVIRONMENT = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def run(*command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=ENVIRONMENT)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr[-2000:]}")
    return done.stdout


class Hosts:
    """Two namespaces and a cable of this rate."""

    def __init__(self, folder, rate):
        self.on, self.agent = folder / "on", folder / "agent"
        self.drop()
        for host in HOSTS:
            run("ip", "netns", "add", host)
        run("ip", "link", "add", "cable", "netns", HOSTS[0], "type", "veth", "peer", "name", "cable", "netns", HOSTS[1])
        for at, host in enumerate(HOSTS):
            run("ip", "-n", host, "address", "add", f"10.78.0.{at + 1}/24", "dev", "cable")
            for link in ("lo", "cable"):
                run("ip", "-n", host, "link", "set", link, "up")
            if rate != "cable":
                run("ip", "netns", "exec", host, "tc", "qdisc", "add", "dev", "cable", "root", "tbf", "rate", rate, "burst", "256kb", "latency", "100ms")
        self.on.write_text('#!/bin/sh\nspace=$1\nshift\nexec ip netns exec "$space" unshare --uts sh -c \'hostname "$0" && exec "$@"\' "$space" "$@"\n')
        self.agent.write_text(f'#!/bin/sh\nshift\nexec "{self.on}" {HOSTS[1]} sh -c "$*"\n')
        for script in (self.on, self.agent):
            script.chmod(0o755)

    def drop(self):
        for host in HOSTS:
            subprocess.run(["ip", "netns", "del", host], capture_output=True)

    def mpirun(self):
        return [self.on, HOSTS[0], "mpirun", "-n", 2, "--host", "10.78.0.1:1,10.78.0.2:1", "--bind-to", "none", "--mca", "plm_rsh_agent",
                self.agent, "--mca", "pml", "ob1", "--mca", "btl", "tcp,self", "--mca", "btl_tcp_if_include", "10.78.0.0/24", "--mca",
                "oob_tcp_if_include", "10.78.0.0/24"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--before", type=pathlib.Path, required=True)
    parser.add_argument("--after", type=pathlib.Path, required=True)
    parser.add_argument("--rates", default="local,10gbit,1gbit")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    builds = {"before": options.before.resolve(), "after": options.after.resolve()}
    lines = ["Milliseconds of a step on two processes of one thread, median [least, largest] of "
             f"{options.rounds} rounds in turn:", "", "| between them | before | after | before / after |", "|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        run(builds["after"], "bench", "table2", "--scale", 60, "--steps", options.steps, "--out", folder, "--json")
        config = folder / "config.toml"
        config.write_text(f'name = "overlap"\nseed = 1\nruns = "{folder / "runs"}"\n[data]\nsamples = "{folder / "data"}"\n'
                          "[train]\nbatch = 1000\nlanes = 32\nepochs = 1\n")
        for rate in options.rates.split(","):
            hosts = None if rate == "local" else Hosts(folder, rate)
            launch = hosts.mpirun() if hosts else ["mpirun", "-n", 2, "--oversubscribe", "--bind-to", "none"]
            ms = {build: [] for build in builds}
            for at in range(options.rounds):
                for build, program in builds.items():
                    found = json.loads(run(*launch, program, "bench", "placement", config, "--steps", options.steps, "--threads", 1, "--json"))
                    row = next(row for row in found["placements"] if row["placement"] == "ams")
                    ms[build].append(1e3 * row["seconds_per_step"])
                    with open(options.out / "results.jsonl", "a") as file:
                        file.write(json.dumps({"between": rate, "round": at, "build": build, "ms": ms[build][-1], "losses": row.get("losses")}) + "\n")
            if hosts:
                hosts.drop()
            ratios = [before / after for before, after in zip(*ms.values())]
            lines.append(f"| {rate} | {around(ms['before'], 1)} | {around(ms['after'], 1)} | {around(ratios, 2)} |")
            print(lines[-1], flush=True)
    (options.out / "table.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
