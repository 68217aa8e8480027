"""From the raw numbers of a run to docs/benchmark/README.md and its plots."""

from statistics import median

import cells
import plot

NAMES = ("plain", "plain again", "native", "callout", "router", "TensorZero", "LiteLLM")
OURS = ("callout", "router")
NONE = "–"


def write(results, folder):
    numbers = Numbers(results)
    page = "\n\n".join(
        [
            HEAD,
            "## Targets\n\n" + targets(numbers) + "\n\n" + FLOOR,
            "## Kinds of work\n\n" + "\n\n".join(work_table(numbers, cell) for cell in cells.CELLS),
            "![CPU of a request](cpu.svg)\n\n![Requests in a second](throughput.svg)",
            "## Streams, chunk by chunk\n\n"
            + TIMED_NOTE
            + "\n\n"
            + "\n\n".join(timed_table(numbers, cell) for cell in cells.TIMED),
            "## Memory\n\n" + memory_table(numbers),
            "## How the cost grows\n\n" + growth(numbers),
            "## Machine and versions\n\n" + machine(results),
            HOW,
        ]
    )
    (folder / "README.md").write_text(page.strip() + "\n")
    for name, picture in plots(numbers).items():
        (folder / f"{name}.svg").write_text(picture)


class Numbers:
    """Medians and ratios of a run. Each ratio is taken within a round, so that a drift of the machine is in both parts."""

    def __init__(self, results):
        self.results = results
        self.failed_to_start = results["failed"]

    def of(self, part, cell, name):
        return self.results["work"][part].get(cell.key, {}).get(name, [])

    def cpu_ratio(self, cell, name):
        """CPU×, one for each round. The peers are compared with the floor alone, the Envoys with it side by side."""
        part = "together" if self.of("together", cell, name) else "alone"
        return ratios(self.of(part, cell, name), self.of(part, cell, cell.floor))

    def cpu(self, cell, name):
        """Microseconds of a request, alone."""
        return median(map(cpu_each, self.of("alone", cell, name)))

    def throughput(self, cell, name):
        return median(1e9 * one["done"] / one["took"] for one in self.of("alone", cell, name))

    def paced(self, cell, name):
        """Times at a low rate in microseconds, sorted."""
        return sorted(time / 1e3 for one in self.of("paced", cell, name) for time in one["times"])

    def failures(self, cell, name):
        runs = [one for part in ("together", "alone", "paced") for one in self.of(part, cell, name)]
        return sum(one["failed"] for one in runs)

    def timed(self, cell, name, what):
        """`first` or `delays`, in microseconds, sorted."""
        return sorted(time / 1e3 for one in self.of("timed", cell, name) for time in one[what])

    def growth(self, kind, key, name):
        return self.results[kind].get(str(key), {}).get(name, [])

    def held(self, name):
        """kB of memory of a stream, over those of plain Envoy."""
        held = self.results["held"]
        return held[name]["kb"] - held["plain"]["kb"]


def cpu_each(run):
    return run["cpu"] / 1e3 / max(run["done"], 1)


def ratios(runs, floors):
    return [cpu_each(one) / cpu_each(floor) for one, floor in zip(runs, floors)]


def percentile(times, share):
    return times[min(len(times) - 1, int(len(times) * share))]


def work_table(numbers, cell):
    rows = []
    for name in NAMES:
        if name in numbers.failed_to_start:
            rows.append([name, "did not start", *[NONE] * 6])
        elif numbers.of("alone", cell, name):
            rows.append(work_row(numbers, cell, name))
    head = ["", "CPU×", "(range)", "CPU of a request", "requests/s", "p50", "p99", "failed"]
    against = "" if cell.floor == "plain" else ", CPU× against Envoy's own failover"
    return f"**({cell.key[0]})** {cell.title}{against}\n\n" + table(head, rows)


def work_row(numbers, cell, name):
    ratio = numbers.cpu_ratio(cell, name)
    paced = numbers.paced(cell, name)
    latency = [micros(percentile(paced, share)) for share in (0.5, 0.99)] if paced else [NONE, NONE]
    return [
        name,
        f"{median(ratio):.2f}",
        f"{min(ratio):.2f} to {max(ratio):.2f}",
        micros(numbers.cpu(cell, name)),
        f"{numbers.throughput(cell, name):,.0f}",
        *latency,
        numbers.failures(cell, name),
    ]


def timed_table(numbers, cell):
    rows = []
    for name in ("direct", *NAMES):
        if not numbers.of("timed", cell, name):
            continue
        first, delays = (numbers.timed(cell, name, what) for what in ("first", "delays"))
        failed = sum(one["failed"] for one in numbers.of("timed", cell, name))
        if not first:
            rows.append([name, "no fallback", *[NONE] * 3, failed])
            continue
        row = [micros(percentile(times, share)) for times in (first, delays) for share in (0.5, 0.99)]
        rows.append([name, *row, failed])
    head = ["", "first chunk, p50", "p99", "delay of a chunk, p50", "p99", "failed"]
    return f"**({cell.key})** {cell.title}\n\n" + table(head, rows)


def memory_table(numbers):
    results = numbers.results
    rows = []
    for name in NAMES:
        if name in results["held"]:
            held = results["held"][name]
            rows.append(
                [
                    name,
                    f"{results['memory'][name] / 1024:,.0f} MB",
                    held["open"],
                    f"{held['kb']:.0f} kB",
                    f"{numbers.held(name):+.0f} kB",
                ]
            )
    head = ["", "after all work", "**(g)** streams open at once", "memory of each", "over plain Envoy"]
    return table(head, rows)


def growth(numbers):
    return "\n\n".join(
        [
            "CPU of a request of 1 kB by the number of Model APIs and services in the configuration, of which the last is asked"
            " for, and CPU× against plain Envoy:",
            growth_table(numbers, "apis", cells.API_COUNTS, [f"{name} {{}}" for name in OURS], "plain", "{:,}"),
            "![Growth with the configuration](apis.svg)",
            "CPU of a request by the size of its body, and CPU× against plain Envoy with the same body:",
            growth_table(numbers, "bodies", cells.BODY_SIZES, OURS, "plain", "{:,} B"),
            "![Growth with the body](bodies.svg)",
            "CPU of a request by the number of attempts, all but the last answered `503`, and CPU× against Envoy's own failover"
            " with as many:",
            growth_table(numbers, "chains", cells.CHAINS, OURS, "native", "{}"),
            "![Growth with the chain](chains.svg)",
        ]
    )


def growth_table(numbers, kind, keys, names, floor, label):
    rows = []
    for key in keys:
        # The number of Model APIs is part of the name of the gateway, and not of the request.
        step = "1 kB" if kind == "apis" else key
        floors = numbers.growth(kind, step, floor)
        runs = {name: numbers.growth(kind, step, name.format(key)) for name in names}
        if not floors or not all(runs.values()):
            continue
        row = [label.format(key), micros(median(map(cpu_each, floors)))]
        for one in runs.values():
            row += [micros(median(map(cpu_each, one))), f"{median(ratios(one, floors)):.2f}"]
        rows.append(row)
    ours = [head for name in OURS for head in (name, "CPU×")]
    return table(["", floor, *ours], rows)


def targets(numbers):
    rows = [
        [what, limit_text, shown, "yes" if met else "**no**"] for what, limit_text, shown, met in target_rows(numbers)
    ]
    return table(["", "target", "measured", "met"], rows)


def target_rows(numbers):
    by_key = {cell.key: cell for cell in cells.CELLS}
    timed = {cell.key: cell for cell in cells.TIMED}

    def below(what, value, limit, form="{:.2f}", strict=False):
        sign = "<" if strict else "≤"
        return what, f"{sign} {form.format(limit)}", form.format(value), value < limit if strict else value <= limit

    def ratio(key, name):
        return median(numbers.cpu_ratio(by_key[key], name))

    def p50(key, name):
        return percentile(numbers.paced(by_key[key], name), 0.5)

    def stream(key, name, what, share):
        return percentile(numbers.timed(timed[key], name, what), share)

    micro, milli, kilo = "{:.0f} µs", "{:.1f} ms", "{:.0f} kB"
    control = [median(numbers.cpu_ratio(cell, "plain again")) for cell in cells.CELLS if cell.floor == "plain"]
    spread = f"{min(control):.3f} to {max(control):.3f}"
    yield (
        "control: plain Envoy against itself, CPU×",
        "0.97 to 1.03",
        spread,
        0.97 <= min(control) and max(control) <= 1.03,
    )
    yield below("(a) CPU×, callout", ratio("a", "callout"), 1.33)
    yield below("(a) CPU×, router", ratio("a", "router"), 1.5)
    for name in OURS:
        yield below(f"(a) p50 added at a low rate, {name}", p50("a", name) - p50("a", "plain"), 100, micro, strict=True)
    for name in OURS:
        yield below(f"(b) CPU× at 100 kB, {name}", ratio("b100k", name), 1.33)
    for name in OURS:
        yield below(f"(b) cost of a byte, largest body to the one before, {name}", last_step(numbers, name), 1.1)
    for name in OURS:
        yield below(f"(c) CPU× against Envoy's own failover, {name}", ratio("c", name), 1.25)
    for name in OURS:
        yield below(
            f"(c) p50 below that of Envoy's own failover, {name}",
            p50("c", name),
            p50("c", "native"),
            micro,
            strict=True,
        )
    for name in OURS:
        for word, share in (("p50", 0.5), ("p99", 0.99)):
            value = stream("d", name, "delays", share) / stream("d", "plain", "delays", share)
            yield below(f"(d) delay of a chunk against plain Envoy, {word}, {name}", value, 1.3)
    direct = stream("e", "direct", "first", 0.5)
    yield below(
        "(e) first chunk after the service's own, p50, router",
        (stream("e", "router", "first", 0.5) - direct) / 1e3,
        2,
        milli,
    )
    late = stream("f", "router", "first", 0.5) - stream("f", "direct", "first", 0.5)
    yield below(
        "(f) first chunk after timeout and service's own, p50, router",
        late / 1e3 - cells.FIRST_PACKET_TIMEOUT_MS,
        10,
        milli,
    )
    for name in OURS:
        yield below(f"(g) memory of a stream over plain Envoy, {name}", numbers.held(name), 40, kilo, strict=True)
    for name in OURS:
        yield below(f"(h) CPU×, {name}", ratio("h", name), 1.05)
    for name in OURS:
        many, one = (numbers.growth("apis", "1 kB", f"{name} {count}") for count in (cells.API_COUNTS[-1], 1))
        yield below(f"{cells.API_COUNTS[-1]:,} Model APIs against one, CPU, {name}", median(ratios(many, one)), 1.2)


def last_step(numbers, name):
    """The CPU of a byte in the largest body, against the one before: over 1 where cost grows faster than the body."""
    small, large = sorted(map(int, numbers.results["bodies"]))[-2:]

    def of_byte(size):
        return median(map(cpu_each, numbers.growth("bodies", size, name))) / size

    return of_byte(large) / of_byte(small)


def plots(numbers):
    def work(value, names):
        return {
            cell.key: {name: value(cell, name) for name in names if numbers.of("alone", cell, name)}
            for cell in cells.CELLS
        }

    def grown(kind, names):
        steps = numbers.results[kind]
        return {name: {int(key): median(map(cpu_each, runs[name])) for key, runs in steps.items()} for name in names}

    apis = numbers.results["apis"]["1 kB"]
    by_count = {
        name: {int(key.split()[1]): median(map(cpu_each, runs)) for key, runs in apis.items() if key.startswith(name)}
        for name in OURS
    }
    floor = median(map(cpu_each, apis["plain"]))
    by_count["plain"] = {count: floor for count in by_count["callout"]}
    envoys = NAMES[2:5]
    all_names = [name for name in NAMES if name != "plain again"]
    return {
        "cpu": plot.bars(
            "CPU of a request", "CPU×", work(lambda *one: median(numbers.cpu_ratio(*one)), envoys), envoys
        ),
        "throughput": plot.bars(
            "Throughput at saturation", "requests/s", work(numbers.throughput, all_names), all_names, log=True
        ),
        "apis": plot.lines("CPU of a request, by Model APIs in the configuration", "µs", "{:,}".format, by_count),
        "bodies": plot.lines("CPU of a request, by its body", "µs", size_text, grown("bodies", ("plain", *OURS))),
        "chains": plot.lines("CPU of a request, by its attempts", "µs", str, grown("chains", ("native", *OURS))),
    }


def size_text(size):
    return f"{size // 1_000_000} MB" if size >= 1_000_000 else f"{size // 1000} kB"


def machine(results):
    rows = [[name, value] for name, value in results["machine"].items()]
    rows += [[f"{name} did not start", why.replace("|", "/")] for name, why in results["failed"].items()]
    rows.append(["the run took", f"{results['seconds']} s"])
    return table(["", ""], rows)


def micros(value):
    """A time given in microseconds."""
    return f"{value / 1e3:,.2f} ms" if value >= 10_000 else f"{value:,.0f} µs"


def table(head, rows):
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(str(field) for field in line) + " |" for line in lines)


HEAD = """# Benchmark

`make bench` writes this page; do not edit it. It tells what a request costs with the filter, next to the same Envoy
without it and to other gateways with the same fallback. [How to read it, and how it is measured](#how-it-is-measured).

| | |
|---|---|
| plain | Envoy without the filter: the floor |
| plain again | a second one, the same: what is not 1.00 here is noise |
| native | Envoy's own failover: an aggregate of two clusters, and a retry at the second after up to 1 ms, the shortest back-off that Envoy has (25 ms by default) |
| callout, router | Envoy with the filter, in its two dispatch modes |
| TensorZero | its gateway (Rust), from the Python package: that holds no program, but the whole HTTP server as a library |
| LiteLLM | its proxy, one worker |"""

FLOOR = """**What stands in the way.** Most of the cost is the way from Envoy into a VM and back. A Wasm filter with no code of its own
that makes the same calls as this one (it holds the request's body and the start of the answer, reads all headers and sets
a few) was measured in the same way, by hand, with Envoy 1.40: CPU× is 1.44 to 1.46 for (a) and 1.43 for (b) with the calls of
callout mode, and 1.82 with those of router mode, which has two filters. So no Wasm filter that does this comes to 1.33 or 1.5.
What is above those numbers is this filter's own code, its metrics and the clock."""

TIMED_NOTE = """A few streams at a time, a chunk each 10 ms. Each chunk carries the time when the service wrote it. *direct* is the service
without a gateway; in (e) and (f) the fallback service. A fallback in callout mode arrives whole, by design: its first chunk
comes with its last."""

HOW = f"""## How it is measured

- All gateways run at the same time on one core, each with one worker. The load and the mock services share another core, in
  one process that takes about half of it.
- **CPU×** is the CPU time of a request, as a ratio to that of the floor in the same round; the median of all rounds, and the
  lowest and highest. All Envoys are loaded at once for this, so that a change in the speed of the machine hits all alike.
  It is the figure to judge by. That of the peers is from windows in which they were loaded alone.
- **CPU of a request** and **requests/s** are from windows in which each gateway is loaded alone, one after the other, round by
  round. They drift with the machine, by 20 to 30 % on a shared one.
- **p50** and **p99** are the times of whole requests, sent one at a time, in random order over the gateways, 100 in a second
  for each at most.
- Requests are conversations of that size; answers have 1 kB. HTTP/1.1 without TLS on both sides, loopback only. Each answer
  is checked for its status, and for the service that is to give it.
- No gateway writes an access log. The filter's line for each fallback is on, as it is by default. TensorZero's lines for
  failures are off, and so are its database and LiteLLM's. LiteLLM's cooldown is off, since each request is to begin at the
  primary.
- A gateway that is so slow that it takes {cells.Sizes.alone_limit_s:.0f} s over one kind of work is left out of its later rounds.
- (h) is a `POST` to a path that no Model API has.

Reproduce it with `make bench`, on a machine with two free cores, in under 15 minutes; the first time needs a network, for the
peers. `BENCH_QUICK=1 make bench` is a smoke run that writes to `.bench/quick/`. `make bench-core` times the core's hot paths
by themselves, and `make bench-guard` counts their instructions and fails where these have grown."""
