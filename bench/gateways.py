"""The processes: gateways on one core, load and mock services on another."""

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import cells
import envoy

PROJECT = envoy.PROJECT
VENV = PROJECT / ".bench/venv/bin"
TENSORZERO_MODEL = "tensorzero::model_name::chat"
START_LIMIT_S = 60
PR_SET_PDEATHSIG = 1


class Rig:
    """The load generator and mock services: bench/src/rig.rs."""

    def __init__(self, program, core):
        self.process = start([program], core, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        ports = json.loads(self.process.stdout.readline())
        self.ports = {"primary": ports["primary"], "fallback": ports["fallback"]}

    def run(self, task, targets, **command):
        """One command of the rig; the result by the name of the gateway."""
        line = json.dumps({"do": task, "targets": targets, **command})
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the rig ended at: {line}")
        return json.loads(answer)

    def stop(self):
        stop(self.process)


class Gateway:
    """A gateway in a process of its own."""

    is_envoy = False
    most_connections = 1000

    def __init__(self, name, port, command, core, folder, path=envoy.MODEL_API, model=cells.MODEL, env=None):
        self.name, self.port, self.path, self.model = name, port, path, model
        self.log = folder / f"{name.replace(' ', '-')}.log"
        with open(self.log, "w") as log:
            # A shell, so that a program that is missing is a gateway that did not start, and not the end of the run.
            command = ["sh", "-c", 'exec "$0" "$@"', *command]
            self.process = start(
                command, core, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **(env or {})}
            )

    def target(self, path=None, model=None):
        return {"name": self.name, "port": self.port, "path": path or self.path, "model": model or self.model}

    def cpu(self):
        """Nanoseconds on a CPU so far, of all threads."""
        total = 0
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                total += int((task / "schedstat").read_text().split()[0])
        return total

    def memory(self):
        """Resident memory in kB."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise RuntimeError(f"{self.name} has ended")

    def wait(self):
        """Until it accepts connections."""
        end = time.monotonic() + START_LIMIT_S
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise RuntimeError(self.last_words())
            if self.is_ready():
                return self
            time.sleep(0.1)
        raise RuntimeError(f"not within {START_LIMIT_S} s: {self.last_words()}")

    def is_ready(self):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def last_words(self):
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1][-300:].replace(f"{PROJECT}/", "") if lines else "it said nothing"

    def stop(self):
        stop(self.process)


class Envoy(Gateway):
    is_envoy = True


class LiteLLM(Gateway):
    """A single thread of Python. With more, it would be at the backlog for long after the end of a window."""

    most_connections = 4


class TensorZero(Gateway):
    """It chooses its port itself, and prints it."""

    def is_ready(self):
        for line in self.log.read_text().splitlines():
            if line.startswith("http://127.0.0.1:"):
                self.port = int(line.split(":")[2].split("/")[0])
                return super().is_ready()
        return False


class Bench:
    """What the gateways of a run have in common."""

    def __init__(self, rig_program, envoy_bin, folder):
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            sys.exit("bench: needs two cores, one for the gateways and one for the load")
        self.gateway_core, self.load_core = cores[:2]
        os.sched_setaffinity(0, {self.load_core})
        self.envoy_bin, self.folder = envoy_bin, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.rig = Rig(rig_program, self.load_core)

    def envoy(self, name, kind, *arguments, model=cells.MODEL):
        """An Envoy with a configuration of envoy.py."""
        port = free_port()
        config = kind(port, self.rig.ports, *arguments)
        file = self.folder / f"{name.replace(' ', '-')}.json"
        file.write_text(json.dumps(config))
        # No access log. The filter's own lines at a fallback stay on, as they are by default.
        command = [self.envoy_bin, "-c", file, "--concurrency", "1", "--disable-hot-restart"]
        command += ["--log-level", "warning", "--component-log-level", "wasm:info"]
        return Envoy(name, port, command, self.gateway_core, self.folder, model=model)

    def tensorzero(self):
        file = self.folder / "tensorzero.toml"
        providers = "".join(
            f'[models.chat.providers.{name}]\ntype = "openai"\nmodel_name = "{name}"\napi_key_location = "none"\n'
            f'api_base = "http://127.0.0.1:{port}/v1/"\n'
            f"timeouts = {{ streaming = {{ ttft_ms = {cells.FIRST_PACKET_TIMEOUT_MS} }} }}\n"
            for name, port in self.rig.ports.items()
        )
        file.write_text('[models.chat]\nrouting = ["primary", "fallback"]\n' + providers)
        command = [VENV / "python", PROJECT / "bench/peers/tensorzero_gateway.py", file]
        # By default it logs each failure of a provider.
        return TensorZero(
            "TensorZero",
            0,
            command,
            self.gateway_core,
            self.folder,
            path="/openai/v1/chat/completions",
            model=TENSORZERO_MODEL,
            env={"RUST_LOG": "off"},
        )

    def litellm(self):
        port = free_port()

        def model(name, service):
            parameters = {
                "model": f"openai/{service}",
                "api_key": "none",
                "api_base": f"http://127.0.0.1:{self.rig.ports[service]}/v1",
                "stream_timeout": cells.FIRST_PACKET_TIMEOUT_MS / 1000,
            }
            return {"model_name": name, "litellm_params": parameters}

        config = {
            "model_list": [model("chat", "primary"), model("second", "fallback")],
            # A failure must not take the primary out: each request is to begin with it, as with the others.
            "router_settings": {"num_retries": 0, "disable_cooldowns": True, "fallbacks": [{"chat": ["second"]}]},
            "litellm_settings": {"num_retries": 0, "telemetry": False},
        }
        file = self.folder / "litellm.yaml"
        # JSON is YAML.
        file.write_text(json.dumps(config))
        quiet = self.folder / "litellm-log.json"
        quiet.write_text(json.dumps({"version": 1, "disable_existing_loggers": True, "root": {"level": "CRITICAL"}}))
        command = [
            VENV / "litellm",
            "--config",
            file,
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--num_workers",
            "1",
            "--log_config",
            quiet,
        ]
        # Its list of prices, which it would fetch; loopback only.
        env = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
        return LiteLLM("LiteLLM", port, command, self.gateway_core, self.folder, env=env)

    def direct(self, service="primary"):
        """The service itself, as a target."""
        return {"name": "direct", "port": self.rig.ports[service], "path": envoy.MODEL_API, "model": cells.MODEL}

    def stop(self):
        self.rig.stop()


@contextlib.contextmanager
def running(*starts):
    """Starts gateways side by side and waits for them: those that run, and by name why others do not. Ends them."""
    started, ready, failed = [], [], {}
    try:
        for begin in starts:
            started.append(begin())
        for one in started:
            try:
                ready.append(one.wait())
            except RuntimeError as error:
                failed[one.name] = str(error)
        yield ready, failed
    finally:
        for one in started:
            one.stop()


def start(command, core, **options):
    """A process on this core alone, that ends with this one, however that ends."""

    def prepare():
        os.sched_setaffinity(0, {core})
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    return subprocess.Popen([str(part) for part in command], preexec_fn=prepare, **options)


def stop(process):
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
