"""TensorZero's gateway on a port: `tensorzero_gateway.py CONFIG`. Prints its address.

The Python package holds no program, but the whole HTTP gateway (Rust) as a library: it is what its `patch_openai_client`
starts. Python only waits here.
"""

import signal
import sys

from tensorzero import _start_http_gateway

gateway = _start_http_gateway(
    config_file=sys.argv[1], clickhouse_url=None, postgres_url=None, valkey_url=None, async_setup=False
)
print(gateway.base_url, flush=True)
signal.pause()
