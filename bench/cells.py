"""What is measured: each kind of work, the gateways, and the sizes of a run."""

from dataclasses import dataclass, field

import envoy

MODEL = "chat"
# Gateways that a run can do without.
PEERS = ("TensorZero", "LiteLLM")
FIRST_PACKET_TIMEOUT_MS = 300
# Ten attempts at most: all but the last fail.
CHAINS = (1, 2, 3, 5, 10)
API_COUNTS = (1, 100, 5000)
BODY_SIZES = (1_000, 10_000, 100_000, 1_000_000, 4_000_000, 8_000_000)
# As docs/operation.md says.
BUFFER = 2 << 20
LARGE_BODY, LARGE_BUFFER = 16 << 20, 32 << 20

STREAM = {"stream": {"chunks": 20, "gap_us": 2000}}
SLOW_STREAM = {"stream": {"chunks": 20, "gap_us": 10_000}}


@dataclass(frozen=True)
class Cell:
    """One kind of work. CPU× is against the gateway `floor`, the first that can do this work."""

    key: str
    title: str
    request: dict
    floor: str = "plain"
    primary: object = "answer"
    fallback: object = "answer"
    path: str | None = None
    connections: int = 16
    paced: bool = True

    def command(self):
        return {"request": self.request, "primary": self.primary, "fallback": self.fallback}


CELLS = (
    Cell("a", "primary answers, 1 kB", {"says": "from primary"}),
    Cell("b100k", "primary answers, 100 kB", {"says": "from primary", "size": 100_000}),
    Cell("b1M", "primary answers, 1 MB", {"says": "from primary", "size": 1_000_000}),
    Cell("c", "primary 503, fallback answers", {"says": "from fallback"}, floor="native", primary="fail"),
    Cell(
        "d",
        "stream of 20 chunks, primary answers",
        {"says": "from primary", "stream": True},
        primary=STREAM,
        connections=64,
        paced=False,
    ),
    Cell(
        "e",
        "stream of 20 chunks, primary 503, fallback streams",
        {"says": "from fallback", "stream": True},
        floor="native",
        primary="fail",
        fallback=STREAM,
        connections=64,
        paced=False,
    ),
    Cell("h", "no Model API request, 1 kB", {"says": "from primary"}, path="/v1/files"),
)

# Timed chunk by chunk, a few streams at a time.
TIMED = (
    Cell("d", "primary streams", {"says": "from primary", "stream": True}, primary=SLOW_STREAM),
    Cell(
        "e",
        "primary 503, fallback streams",
        {"says": "from fallback", "stream": True},
        floor="native",
        primary="fail",
        fallback=SLOW_STREAM,
    ),
    # All are asked. Who cannot do it would wait for ever.
    Cell(
        "f",
        f"primary silent after its headers, timeout {FIRST_PACKET_TIMEOUT_MS} ms",
        {"says": "from fallback", "stream": True, "limit_ms": 1500},
        primary="silent",
        fallback=SLOW_STREAM,
    ),
)


def services(count=0):
    """A primary and a fallback service, and `count` more that no request asks for."""
    named = {name: {"cluster": name, "authority": f"{name}.example.com"} for name in ("primary", "fallback")}
    more = {f"service-{n}": {"cluster": "fallback", "authority": f"{n}.example.com"} for n in range(count)}
    return {**named, **more}


def model_api(name, fallback, **matching):
    return {
        "name": name,
        "match": {"paths": [envoy.MODEL_API], **matching},
        "primary": {"service": "primary"},
        "fallback": {
            "services": fallback,
            "on_status": ["429", "5xx"],
            "first_packet_timeout_ms": FIRST_PACKET_TIMEOUT_MS,
        },
    }


def plugin():
    """The filter's configuration for the kinds of work."""
    return {"services": services(), "model_apis": [model_api("chat", [{"service": "fallback", "model": "second"}])]}


def plugin_with_apis(count):
    """One with `count` Model APIs and services; that of the last is asked for."""
    apis = [
        model_api(f"api-{n}", [{"service": f"service-{n}", "model": "second"}], models=[f"model-{n}"])
        for n in range(count)
    ]
    return {"services": services(count), "model_apis": apis}


def large_plugin():
    """One for large bodies and for chains: the model `chain-N` has N attempts, at the primary but for the last."""
    apis = [model_api("chat", [{"service": "fallback", "model": "second"}], models=[MODEL])]
    for length in CHAINS[1:]:
        middle = [{"service": "primary", "model": f"again-{n}"} for n in range(length - 2)]
        apis.append(
            model_api(
                f"chain-{length}", [*middle, {"service": "fallback", "model": "last"}], models=[f"chain-{length}"]
            )
        )
    return {
        "buffer_limit_bytes": LARGE_BUFFER,
        "max_body_bytes": LARGE_BODY,
        "services": services(),
        "model_apis": apis,
    }


def native_chains():
    """The same chains for Envoy's own failover."""
    chains = {MODEL: ["primary", "fallback"]}
    return chains | {f"chain-{n}": ["primary"] * (n - 1) + ["fallback"] for n in CHAINS[1:]}


@dataclass
class Sizes:
    """How long a run takes."""

    rounds: int = 8
    # A window in which all Envoys are loaded together, one in which a gateway is loaded alone, one at a low rate.
    together_ms: int = 1200
    alone_ms: int = 350
    paced_ms: int = 1000
    per_second: int = 100
    warm_up_ms: int = 200
    timed_streams: int = 5
    held_streams: int = 2000
    hold_limit_ms: int = 20_000
    growth_rounds: int = 8
    growth_ms: int = 1200
    # No round begins later than this after the start, so that a run is bounded.
    work_until_s: float = 570
    growth_until_s: float = 780
    # A gateway that takes longer than this over one kind of work leaves out the later rounds.
    alone_limit_s: float = 6.0
    chains: tuple = field(default=CHAINS)
    body_sizes: tuple = field(default=BODY_SIZES)
    api_counts: tuple = field(default=API_COUNTS)


QUICK = Sizes(
    rounds=2,
    together_ms=500,
    alone_ms=200,
    paced_ms=300,
    warm_up_ms=100,
    timed_streams=2,
    held_streams=200,
    hold_limit_ms=5000,
    growth_rounds=2,
    growth_ms=400,
    alone_limit_s=2.0,
    chains=(1, 2, 10),
    body_sizes=(1_000, 1_000_000, 8_000_000),
)
