"""What a run was made on, and with."""

import os
import subprocess
import time
from pathlib import Path

from gateways import PROJECT, VENV


class Machine:
    """Made at the start of a run; the facts are asked for at its end."""

    def __init__(self):
        self.load = os.getloadavg()[0]
        self.ticks = cpu_ticks()

    def facts(self, bench):
        all_ticks, stolen = (after - before for after, before in zip(cpu_ticks(), self.ticks))
        wasm = PROJECT / "build/ai_fallback.wasm"
        return {
            "date": time.strftime("%Y-%m-%d"),
            "CPU": f"{cpu_name()}, {os.cpu_count()} cores",
            "kernel": os.uname().release,
            "load average before": round(self.load, 2),
            "stolen by the host": f"{100 * stolen / max(all_ticks, 1):.1f} %",
            # PATH/envoy  version: HASH/1.40.0/Clean/RELEASE/BoringSSL
            "Envoy": said_by(bench.envoy_bin, "--version").split("version: ")[-1].split("/")[1],
            "filter": f"{wasm.stat().st_size:,} bytes",
            "TensorZero": package("tensorzero"),
            "LiteLLM": package("litellm"),
            "rustc": said_by("rustc", "--version").removeprefix("rustc "),
        }


def cpu_ticks():
    """Of all cores since the machine started: all of them, and those that the host took for others."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return sum(fields[:8]), fields[7]


def cpu_name():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")


def package(name):
    """The version of a Python package of the peers."""
    code = f"import importlib.metadata as m, platform as p; print(m.version({name!r}), 'on Python', p.python_version())"
    return said_by(VENV / "python", "-c", code) or "not installed"


def said_by(*command):
    """What a command prints; nothing where it fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
