"""`make bench`: measures the filter against other gateways, and writes docs/benchmark/.

    run.py RIG        RIG: the built bench/src/rig.rs
    run.py --report   writes the report again, from the numbers of the last run, .bench/results.json

BENCH_QUICK=1: a smoke run of a minute or two that writes to .bench/quick/ instead.
"""

import collections
import json
import os
import signal
import sys
import time

import cells
import envoy
import report
from gateways import PROJECT, Bench, running
from machine import Machine

QUICK = os.environ.get("BENCH_QUICK", "0") not in ("", "0")
REPORT = PROJECT / (".bench/quick" if QUICK else "docs/benchmark")
NUMBERS = PROJECT / (".bench/quick/results.json" if QUICK else ".bench/results.json")


def main(arguments):
    if arguments == ["--report"]:
        return report.write(json.loads(NUMBERS.read_text()), REPORT)
    bench = Bench(arguments[0], os.environ["ENVOY_BIN"], PROJECT / ".bench/run")
    sizes = cells.QUICK if QUICK else cells.Sizes()
    began, machine = time.monotonic(), Machine()
    # Ends what was started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: ended by a signal"))
    try:
        results = {**measure_work(bench, sizes, began), **measure_growth(bench, sizes, began)}
    finally:
        bench.stop()
    results["machine"] = machine.facts(bench)
    results["seconds"] = round(time.monotonic() - began)
    results["sizes"] = vars(sizes)
    REPORT.mkdir(parents=True, exist_ok=True)
    NUMBERS.write_text(json.dumps(results))
    report.write(results, REPORT)
    say(f"done in {results['seconds']} s: {(REPORT / 'README.md').relative_to(PROJECT)}")


def measure_work(bench, sizes, began):
    """Each kind of work on each gateway, all of them up all the time."""
    chain = {cells.MODEL: ["primary", "fallback"]}
    starts = (
        lambda: bench.envoy("plain", envoy.plain, cells.BUFFER),
        lambda: bench.envoy("plain again", envoy.plain, cells.BUFFER),
        lambda: bench.envoy("native", envoy.native, cells.BUFFER, chain),
        lambda: bench.envoy("callout", envoy.callout, cells.BUFFER, cells.plugin()),
        lambda: bench.envoy("router", envoy.router, cells.BUFFER, cells.plugin()),
        bench.tensorzero,
        bench.litellm,
    )
    say("starting the gateways")
    with running(*starts) as (ready, failed):
        expect_none({name: why for name, why in failed.items() if name not in cells.PEERS})
        work = Work(bench, sizes, ready)
        # First, while nothing else is in the memory that an Envoy keeps for reuse.
        held = work.memory_of_streams()
        work.warm_up()
        for number in rounds(sizes.rounds, began + sizes.work_until_s):
            say(f"round {number + 1} of {sizes.rounds}")
            work.round(number)
        return {
            "work": work.results,
            "held": held,
            "failed": failed,
            "memory": {one.name: one.memory() for one in ready},
        }


class Work:
    """The rounds over all kinds of work, and what came out."""

    def __init__(self, bench, sizes, ready):
        self.bench, self.sizes = bench, sizes
        self.envoys = [one for one in ready if one.is_envoy]
        self.peers = [one for one in ready if not one.is_envoy]
        self.spent = collections.defaultdict(float)
        # By kind of work and gateway: a list with an entry for each round.
        self.results = {part: {} for part in ("together", "alone", "paced", "timed")}

    def warm_up(self):
        """V8 compiles what is hot a second time."""
        for cell in cells.CELLS:
            for one in self.able(cell, self.envoys + self.peers):
                saturate(self.bench, [one], cell, self.sizes.warm_up_ms)

    def memory_of_streams(self):
        """kB of memory for each open stream, by gateway."""
        held = {}
        for one in self.envoys + self.peers:
            saturate(self.bench, [one], cells.CELLS[0], self.sizes.alone_ms)
            before = one.memory()
            opened = self.bench.rig.run(
                "hold",
                [one.target()],
                primary="hold",
                request={"stream": True, "limit_ms": 120_000},
                streams=self.sizes.held_streams,
                millis=self.sizes.hold_limit_ms,
            )["open"]
            held[one.name] = {"open": opened, "kb": (one.memory() - before) / max(opened, 1)}
            self.bench.rig.run("release", [])
        return held

    def round(self, number):
        for cell in cells.CELLS:
            together = self.able(cell, self.envoys)
            for name, result in saturate(self.bench, together, cell, self.sizes.together_ms).items():
                self.add("together", cell, name, result)
            for one in self.able(cell, self.envoys + self.peers):
                self.alone(cell, one, number)
            if cell.paced:
                self.paced(cell, number)
        for cell in cells.TIMED:
            self.timed(cell)

    def able(self, cell, gateways):
        """Those that can do this kind of work: the plain ones have no fallback, and the peers serve models alone."""
        if cell.path:
            return [one for one in gateways if one.is_envoy]
        return [one for one in gateways if cell.floor == "plain" or not one.name.startswith("plain")]

    def alone(self, cell, one, number):
        if self.is_too_slow(cell, one, number):
            return
        result = saturate(self.bench, [one], cell, self.sizes.alone_ms)[one.name]
        self.spent[cell.key, one.name] += result["took"] / 1e9
        self.add("alone", cell, one.name, result)

    def is_too_slow(self, cell, one, number):
        return number > 1 and self.spent[cell.key, one.name] > self.sizes.alone_limit_s

    def paced(self, cell, number):
        """The peers apart, since one that is slow would hold up the others."""
        groups = [self.able(cell, self.envoys)] + [[one] for one in self.able(cell, self.peers)]
        for group in groups:
            if self.is_too_slow(cell, group[0], number):
                continue
            targets = [one.target(path=cell.path) for one in group]
            result = self.bench.rig.run(
                "pace", targets, per_second=self.sizes.per_second, millis=self.sizes.paced_ms, **cell.command()
            )
            for name, times in result.items():
                self.add("paced", cell, name, times)

    def timed(self, cell):
        answering = "fallback" if "fallback" in cell.request["says"] else "primary"
        able = self.able(cell, self.envoys + self.peers)
        for target in [*(one.target() for one in able), self.bench.direct(answering)]:
            before = self.results["timed"].get(cell.key, {}).get(target["name"])
            # Who could not do it in the first round is not waited for again.
            if not before or before[0]["first"]:
                result = self.bench.rig.run("stream", [target], streams=self.sizes.timed_streams, **cell.command())
                self.add("timed", cell, target["name"], result[target["name"]])

    def add(self, part, cell, name, result):
        self.results[part].setdefault(cell.key, {}).setdefault(name, []).append(result)


def measure_growth(bench, sizes, began):
    """How the cost of a request grows."""
    apis, bodies, chains = {}, {}, {}
    end = began + sizes.growth_until_s
    say("growth with the number of Model APIs")
    kinds = {"callout": envoy.callout, "router": envoy.router}
    starts = [lambda: bench.envoy("plain", envoy.plain, cells.BUFFER)]
    for count in sizes.api_counts:
        for name, kind in kinds.items():
            starts.append(
                lambda name=name, kind=kind, count=count: bench.envoy(
                    f"{name} {count}", kind, cells.BUFFER, cells.plugin_with_apis(count), model=f"model-{count - 1}"
                )
            )
    with running(*starts) as (ready, failed):
        expect_none(failed)
        grow(bench, sizes, ready, {"1 kB": cells.CELLS[0]}, apis, end)

    say("growth with the body, and with the chain")
    starts = (
        lambda: bench.envoy("plain", envoy.plain, cells.LARGE_BUFFER),
        lambda: bench.envoy("native", envoy.native, cells.LARGE_BUFFER, cells.native_chains()),
        lambda: bench.envoy("callout", envoy.callout, cells.LARGE_BUFFER, cells.large_plugin()),
        lambda: bench.envoy("router", envoy.router, cells.LARGE_BUFFER, cells.large_plugin()),
    )
    with running(*starts) as (ready, failed):
        expect_none(failed)
        steps = {
            str(size): cells.Cell("size", "", {"says": "from primary", "size": size}, connections=4)
            for size in sizes.body_sizes
        }
        grow(bench, sizes, [one for one in ready if one.name != "native"], steps, bodies, end)
        steps = {str(length): chain_cell(length) for length in sizes.chains}
        grow(bench, sizes, [one for one in ready if one.name != "plain"], steps, chains, end)
    return {"apis": apis, "bodies": bodies, "chains": chains}


def chain_cell(length):
    """A request whose first `length - 1` attempts fail."""
    if length == 1:
        return cells.Cell("chain", "", {"says": "from primary"})
    request = {"says": "from fallback", "model": f"chain-{length}"}
    return cells.Cell("chain", "", request, floor="native", primary="fail")


def grow(bench, sizes, ready, steps, results, end):
    for number in rounds(sizes.growth_rounds + 1, end):
        for key, cell in steps.items():
            for name, result in saturate(bench, ready, cell, sizes.growth_ms).items():
                # The first round warms up.
                if number > 0:
                    results.setdefault(key, {}).setdefault(name, []).append(result)


def saturate(bench, gateways, cell, millis):
    """What the gateways did in this time, loaded all together: requests and CPU, by name."""
    request = dict(cell.request)
    model = request.pop("model", None)
    connections = min([cell.connections, *(one.most_connections for one in gateways)])
    before = [one.cpu() for one in gateways]
    result = bench.rig.run(
        "saturate",
        [one.target(path=cell.path, model=model) for one in gateways],
        connections=connections,
        millis=millis,
        **{**cell.command(), "request": request},
    )
    for one, cpu in zip(gateways, before):
        result[one.name]["cpu"] = one.cpu() - cpu
    return result


def rounds(count, end):
    """Numbers of rounds: at least two of them, and no more once the time is up."""
    for number in range(count):
        if number > 1 and time.monotonic() > end:
            return say("out of time, the rounds that are left are left out")
        yield number


def expect_none(failed):
    if failed:
        sys.exit(f"bench: {failed}")


def say(text):
    print(f"bench: {text}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
