"""Makes the picture of the dashboard: scripts/dashboard/picture.py FILE [SECONDS]

Starts the demo's gateways and services (they must be built: `make dashboard-picture`) and a Prometheus that reads them as
envoy/observability/prometheus.yml says, sends requests for some minutes, and draws each panel of
envoy/observability/dashboard.json from what Prometheus answers. Grafana has no part in it.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

import draw
import traffic

PROJECT = Path(__file__).resolve().parents[2]
OBSERVABILITY = PROJECT / "envoy/observability"
# Where `make demo KEEP=1` has its gateways and their admin pages.
GATEWAYS = {"gateway-1": (18000, 18001), "gateway-2": (18010, 18011)}
SECONDS = 360
# Traffic that is not shown: until what the demo did is over, such as a service that cools, and each counter was read twice.
BEFORE = 45
# How often Prometheus reads the gateways; the window of rates is what Grafana makes of it.
INTERVAL, WINDOW = 5, 20
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def main(file, seconds=SECONDS):
    # So that what was started ends here, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory() as folder:
        running = []
        try:
            running.append(start_demo(Path(folder)))
            process, prometheus = start_prometheus(Path(folder))
            running.append(process)
            start = time.time() + BEFORE
            traffic.send([port for port, _ in GATEWAYS.values()], BEFORE, int(seconds))
            results = ask(prometheus, start, start + int(seconds))
        finally:
            for process in running:
                process.terminate()
                process.wait()
    dashboard = json.loads((OBSERVABILITY / "dashboard.json").read_text())
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_text(draw.dashboard(dashboard, results))


def start_demo(folder):
    target = Path(os.environ.get("CARGO_TARGET_DIR", PROJECT / "target"))
    said = folder / "demo"
    with said.open("w") as out:
        demo = subprocess.Popen([target / "debug/examples/demo"], env={**os.environ, "KEEP": "1"}, stdout=out, stderr=out)
    wait(demo, said, lambda: "Everything is up" in said.read_text())
    return demo


def start_prometheus(folder):
    scrape = (OBSERVABILITY / "prometheus.yml").read_text()
    targets = [f'- {{targets: ["127.0.0.1:{admin}"], labels: {{instance: {name}}}}}' for name, (_, admin) in GATEWAYS.items()]
    for ours, here in [("scrape_interval: 15s", f"scrape_interval: {INTERVAL}s"),
                       ('- targets: ["127.0.0.1:9901"]', "\n  ".join(targets))]:
        assert scrape.count(ours) == 1, ours
        scrape = scrape.replace(ours, here)
    config, said = folder / "prometheus.yml", folder / "prometheus"
    config.write_text(scrape)
    program = os.environ.get("PROMETHEUS_BIN", PROJECT / ".prometheus/usr/bin/prometheus")
    options = [f"--config.file={config}", f"--storage.tsdb.path={folder}/data", "--web.listen-address=127.0.0.1:0"]
    with said.open("w") as out:
        prometheus = subprocess.Popen([program, *options], stdout=out, stderr=out)
    wait(prometheus, said, lambda: "Server is ready" in said.read_text())
    line = next(line for line in said.read_text().splitlines() if "Listening on" in line)
    return prometheus, "http://" + re.search(r"address=(\S+)", line)[1]


def wait(process, said, ready, limit=300):
    deadline = time.monotonic() + limit
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"{process.args[0]} does not come up:\n{said.read_text()}")
        time.sleep(0.2)


def ask(prometheus, start, end):
    """What Prometheus answers to each query of the dashboard, as Grafana would ask."""
    values = {"$__rate_interval": f"{WINDOW}s", "$__range": f"{int(end - start)}s"}
    values |= dict.fromkeys(["$job", "$instance", "$model_api", "$model_service"], ".+")

    def fetch(path, **asked):
        with DIRECT.open(f"{prometheus}/api/v1/{path}?{urllib.parse.urlencode(asked)}") as answer:
            return json.load(answer)["data"]["result"]

    def results(target):
        query = target["expr"]
        for name, value in values.items():
            query = query.replace(name, value)
        if target.get("instant"):
            return [(one["metric"], [one["value"]]) for one in fetch("query", query=query, time=end)]
        found = fetch("query_range", query=query, start=start, end=end, step=INTERVAL)
        return [(one["metric"], one["values"]) for one in found]

    panels = json.loads((OBSERVABILITY / "dashboard.json").read_text())["panels"]
    targets = [target for panel in panels for target in panel.get("targets", [])]
    answers = {target["expr"]: results(target) for target in targets}
    return draw.Results(start, end, INTERVAL, answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
