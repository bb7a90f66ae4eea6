"""Requests per second and latency of the gateway, against a bare Ray Serve ingress of the same student, and others.

Load: ``wrk`` (one thread, keep-alive; ``apt-get install wrk``), the same script on all sides, every request with a key
of its own. The gateway runs as it does in production: HAProxy, two replicas, a split at 5 %, telemetry to a broker,
provenance and metrics. The bare ingress is a Starlette application with the same student that answers label and
confidence, deployed as Ray Serve's documentation shows; "tuned" is the same with the options that the gateway gives Ray
for its replicas (no access log, no thread of its own for the application). All run on the same Ray at the same time,
two replicas each, and are measured in turn.

Over gRPC the gateway is asked as Open Inference has it by ``h2load`` (one thread, a call at a time on each connection;
``apt-get install nghttp2-client``), beside the same requests over HTTP.

Other servers run one after the other beside the gateway, from the environment that ``COHOBATE_BENCH_SERVERS`` names (a
virtual environment's ``bin/python`` with litserve, bentoml, onnxruntime, msgspec, numpy, fsspec, PyYAML); MLflow runs
from this one.

``COHOBATE_BENCH_SECONDS`` (default 6) is the length of one measurement, ``COHOBATE_BENCH_ROUNDS`` (default 5) how
often the sides alternate.
"""

import contextlib
import importlib.util
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import httpx
import msgspec
import numpy as np
import psutil

from tests.ports import free_port, free_ports
from tests.students import bag

SECONDS = float(os.environ.get("COHOBATE_BENCH_SECONDS", "6"))
ROUNDS = int(os.environ.get("COHOBATE_BENCH_ROUNDS", "5"))
OTHERS = os.environ.get("COHOBATE_BENCH_SERVERS", "")

COLUMNS = [{"name": f"c{n}"} for n in range(8)]
CLASSES = ("a", "b", "c", "d")
COLUMN_JSON = json.dumps({f"c{n}": round(0.37 * n - 1, 2) for n in range(8)}, separators=(",", ":"))

SPEC = f"""
name: bench
teacher: {{factory: "teacher.py:Teacher"}}
payload: {{decoder: json, max_bytes: 2000}}
features: {{factory: "components.student.table:TableColumns", options: {{columns: {json.dumps(COLUMNS)}}}}}
serve: {{replicas: 2, audit_share: 0.1, buffer_records: 10000}}
"""

SCRIPT = """
local n = 0
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
request = function()
  n = n + 1
  return wrk.format(nil, nil, nil, (string.gsub(BODY, "KEY", "k" .. n)))
end
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d\\n", summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99), e.status + e.connect + e.read + e.timeout))
end
"""


class Load(NamedTuple):
    """What was measured: requests a second, percentiles in milliseconds, answers that were not 2xx, and processor time.

    ``cpu`` is the replicas' processor time for one answer in milliseconds, 0 where it is not looked at: what else the
    machine does changes it much less than the others.
    """

    rate: float
    p50: float
    p99: float
    errors: int
    cpu: float = 0.0


def processor_seconds(pids):
    """User and system time that these processes have taken."""
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return sum(t.user + t.system for t in times)


def student(version):
    """A student of a table: hash, gather, weighted sum, two layers, softmax; ``version`` seeds its weights."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from components.contracts.spec import Factory, Payload
    from components.student.card import CARD_KEY, StudentCard

    chance = np.random.default_rng(version)
    shapes = {"table": (len(COLUMNS) + 1, 32), "w1": (32, 64), "w2": (64, len(CLASSES))}
    weights = [numpy_helper.from_array(chance.normal(size=s).astype("float32"), n) for n, s in shapes.items()]
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Unsqueeze", ["weights", "two"], ["row"]),
        helper.make_node("Mul", ["rows", "row"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "one"], ["sum"], keepdims=0),
        helper.make_node("MatMul", ["sum", "w1"], ["h0"]),
        helper.make_node("Relu", ["h0"], ["h"]),
        helper.make_node("MatMul", ["h", "w2"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes, "student",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "length"]),
         helper.make_tensor_value_info("weights", TensorProto.FLOAT, ["batch", "length"])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", len(CLASSES)])],
        [*weights, numpy_helper.from_array(np.array([1]), "one"), numpy_helper.from_array(np.array([2]), "two")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    card = StudentCard(
        workload="bench", task="classification", space="bench@1", classes=CLASSES,
        features=Factory(factory="components.student.table:TableColumns", options={"columns": COLUMNS}),
        payload=Payload(decoder="json", max_bytes=2000), **bag(len(COLUMNS) + 1, 32, 64), variant="base",
        snapshots=("5" * 64,), teacher="bench@" + "7" * 64, parent=None, code="bench",
    )  # fmt: skip
    model.metadata_props.append(onnx.StringStringEntryProto(key=CARD_KEY, value=msgspec.json.encode(card).decode()))
    return model.SerializeToString(deterministic=True)


def prepare(folder):
    """The spec, two versions, and the intent that gives the second one 5 % of the keys."""
    from components.contracts.storage import digest_of
    from components.control.intent import ModelRef
    from components.control.store import ControlStore

    (folder / "bench.yaml").write_text(SPEC)
    refs = []
    for version in (1, 2):
        data = student(version)
        (folder / f"v{version}.onnx").write_bytes(data)
        refs.append(
            ModelRef(
                version=str(version), uri=(folder / f"v{version}.onnx").as_uri(), digest=digest_of(data),
                snapshot="5" * 64, teacher="bench@" + "7" * 64,
            )
        )  # fmt: skip
    from components.contracts.settings import Settings

    store = ControlStore(Settings().control_url)
    store.migrate()
    revision, intent = store.intent("bench")
    store.put_intent(
        "bench", revision,
        msgspec.structs.replace(
            intent, champion=refs[0], candidate=refs[1], weight=0.05, lease_until=time.time() + 1e6
        ),
    )  # fmt: skip
    store.close()


def bare(artifact):
    """A Starlette application that answers label and confidence."""
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    from components.student.runtime import Student

    loaded = Student.load(Path(artifact))

    async def predict(request):
        (soft,) = loaded.predict_decoded([await request.json()])
        return JSONResponse({"label": soft.label, "confidence": soft.confidence})

    async def pid(_):
        return Response(str(os.getpid()))

    return Starlette(routes=[Route("/predict", predict, methods=["POST"]), Route("/pid", pid)])


def serve(folder):
    """Both sides on one Ray, until standard input ends."""
    from components.contracts.settings import Settings
    from components.contracts.spec import load_spec
    from serving.declaration import LOGGING, Workload, declared, serve_config
    from serving.ray_app import REPLICA_CPUS, REPLICA_ENVIRONMENT
    from serving.ray_cluster import deployed
    from serving.ray_environment import environment

    settings = Settings()
    os.environ.update(environment(settings))
    import ray

    ray.init(
        num_cpus=2, object_store_memory=100 * 2**20, include_dashboard=False, log_to_driver=False,
        configure_logging=False, _node_ip_address="127.0.0.1",
    )  # fmt: skip
    from ray import serve

    artifact = str(folder / "v1.onnx")

    def bare_app():
        return bare(artifact)

    def deploy_bare(name, env, **options):
        actor = {"num_cpus": REPLICA_CPUS, "runtime_env": {"env_vars": env}}

        @serve.deployment(num_replicas=2, ray_actor_options=actor, max_ongoing_requests=320, **options)
        @serve.ingress(bare_app)
        class Bare:
            pass

        serve.run(Bare.bind(), name=name, route_prefix=f"/{name}")

    args = declared(settings, [Workload.of(load_spec(folder / "bench.yaml"))], teacher=False)
    with deployed(serve_config(settings, [args], {})):
        deploy_bare("bare", {"OMP_NUM_THREADS": "1"})
        deploy_bare("tuned", REPLICA_ENVIRONMENT, logging_config=LOGGING)
        print("ready", flush=True)
        sys.stdin.read()
    ray.shutdown()


def load(url, body, connections=32, seconds=SECONDS, pids=()):
    """Put load on ``url``, which the processes ``pids`` answer."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(f"BODY = [[{body}]]\n" + SCRIPT)
        file.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "-s", file.name, url]
        before = processor_seconds(pids)
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        cpu = processor_seconds(pids) - before
    found = re.search(r"RESULT (\d+) (\d+) (\d+) (\d+) (\d+)", done.stdout)
    requests, microseconds, p50, p99, errors = map(int, found.groups())
    return Load(requests / microseconds * 1e6, p50 / 1e3, p99 / 1e3, errors, cpu / max(requests, 1) * 1e3)


def infer_request(raw):
    """The same input as Open Inference has it: for HTTP in JSON, for gRPC as a message with its frame."""
    from serving.gateway.oip_messages import message

    tensor = {"name": "payload", "shape": [1], "datatype": "BYTES"}
    over_http = json.dumps({"inputs": [{**tensor, "data": [raw]}]})
    request = message("ModelInferRequest")(model_name="bench", inputs=[tensor])
    encoded = raw.encode()
    request.raw_input_contents.append(len(encoded).to_bytes(4, "little") + encoded)
    body = request.SerializeToString()
    return over_http, b"\0" + len(body).to_bytes(4, "big") + body


def load_grpc(address, frame, connections=32, seconds=SECONDS, pids=()):
    """Put load on a server of gRPC."""
    with tempfile.TemporaryDirectory() as name:
        body, log = Path(name, "body"), Path(name, "log")
        body.write_bytes(frame)
        command = [
            "h2load", "-t1", f"-c{connections}", "-m1", f"-D{seconds:.0f}", "-d", str(body), f"--log-file={log}",
            "-H", "content-type: application/grpc", "-H", "te: trailers",
            f"http://{address}/inference.GRPCInferenceService/ModelInfer",
        ]  # fmt: skip
        before = processor_seconds(pids)
        subprocess.run(command, capture_output=True, text=True, check=True)
        cpu = processor_seconds(pids) - before
        rows = np.loadtxt(log, dtype=np.int64, ndmin=2)
    errors, millis = int((rows[:, 1] != 200).sum()), rows[:, 2] / 1e3
    p50, p99 = np.percentile(millis, [50, 99])
    return Load(len(rows) / seconds, float(p50), float(p99), errors, cpu / max(len(rows), 1) * 1e3)


def show(name, loads):
    rate, p50, p99 = (statistics.median(x[i] for x in loads) for i in range(3))
    errors = sum(x.errors for x in loads)
    cpu = f"   cpu {statistics.median(x.cpu for x in loads):6.3f} ms" if loads[0].cpu else ""
    print(
        f"{name:28} {rate:8.0f} requests/s   p50 {p50:7.2f} ms   p99 {p99:7.2f} ms   errors {errors}{cpu}", flush=True
    )
    return rate, p99


def alternate(sides, connections):
    """Measure the sides in turn, the order turned round each time; the medians of the pairs' ratios to the first."""
    found = {name: [] for name in sides}
    for n in range(ROUNDS):
        for name in list(sides)[:: 1 if n % 2 == 0 else -1]:
            put = load if isinstance(sides[name][1], str) else load_grpc
            found[name].append(put(*sides[name][:2], connections, pids=sides[name][2]))
    for name, loads in found.items():
        show(f"{name}, c={connections}", loads)
    (first, base), *rest = found.items()
    for name, loads in rest:
        rates = [b.rate / a.rate for a, b in zip(base, loads, strict=True)]
        tails = [b.p99 / a.p99 for a, b in zip(base, loads, strict=True)]
        print(
            f"  {name} / {first}: requests/s {statistics.median(rates):.3f} ({min(rates):.3f} to {max(rates):.3f}), "
            f"p99 {statistics.median(tails):.3f} ({min(tails):.3f} to {max(tails):.3f})",
            flush=True,
        )  # fmt: skip


@contextlib.contextmanager
def running(command, url, log, **more):
    """A server, from when it answers until the block ends."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True, **more)
    try:
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(url, timeout=2).status_code < 500:
                    break
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(log.read_text(errors="replace")[-600:])
            time.sleep(0.3)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()


FORMS = {
    "litserve": ("/predict", COLUMN_JSON, "/health"),
    "bentoml": ("/predict", f'{{"columns": {COLUMN_JSON}}}', "/livez"),
    "mlflow": ("/invocations", f'{{"inputs": [{COLUMN_JSON}]}}', "/ping"),
}


def others(folder, gateway):
    """The gateway and the other servers in turn, at 32 connections."""
    for kind, (path, body, health) in FORMS.items():
        python = sys.executable if kind == "mlflow" else OTHERS
        if not python or (kind == "mlflow" and importlib.util.find_spec("mlflow") is None):
            print(f"{kind}: skipped, COHOBATE_BENCH_SERVERS names no environment that has it")
            continue
        port = free_port()
        module = ["tests.bench._litserve"] if kind == "litserve" else ["tests.bench._servers", kind]
        command = [python, "-m", *module, str(folder / "v1.onnx"), str(port), "2"]
        places = f"{Path(python).parent}:{os.environ['PATH']}"
        base = f"http://127.0.0.1:{port}"
        try:
            with running(
                command,
                base + health,
                folder / f"{kind}.log",
                env=os.environ | {"OMP_NUM_THREADS": "1", "PATH": places},
            ):
                load(base + path, body, seconds=2)
                alternate({kind: (base + path, body, ()), "gateway": gateway}, 32)
        except (RuntimeError, subprocess.CalledProcessError) as error:
            print(f"{kind}: skipped, it did not run: {str(error)[-300:]}")


def price(answer):
    """Bytes and encoding time of the answer as its fields are added one after the other."""
    bytes_before, kept = 0, {}
    print("field                bytes   encoding, all so far (us)")
    for name, value in answer.items():
        kept[name] = value
        n, rounds = len(msgspec.json.encode(kept)), 20_000
        began = time.perf_counter()
        for _ in range(rounds):
            msgspec.json.encode(kept)
        print(f"{name:20} {n - bytes_before:5d}   {(time.perf_counter() - began) / rounds * 1e6:6.2f}")
        bytes_before = n


def machine():
    return f"{os.cpu_count()} cores, load {' '.join(f'{x:.1f}' for x in os.getloadavg())}"


def main() -> None:
    if shutil.which("wrk") is None:
        print("skipped: wrk is not installed (apt-get install wrk)")
        return
    from components.contracts.settings import Settings
    from components.contracts.spec import load_spec
    from components.stream import open_broker
    from infra.broker import EmbeddedBroker

    with tempfile.TemporaryDirectory() as name:
        folder, port, broker_port = Path(name), free_ports(6)[0], free_port()
        os.environ |= {
            "COHOBATE_HOME": name, "COHOBATE_GATEWAY_PORT": str(port), "COHOBATE_BROKER_PORT": str(broker_port),
            "COHOBATE_GATEWAY_GRPC_PORT": str(free_port()),
        }  # fmt: skip
        prepare(folder)
        with EmbeddedBroker(broker_port, folder / "broker.log"):
            open_broker(Settings()).ensure_topics(load_spec(folder / "bench.yaml").topics)
            with (folder / "serve.log").open("wb") as log:
                server = subprocess.Popen(
                    [sys.executable, "-m", "tests.bench.gateway", "serve", name],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                )  # fmt: skip
            try:
                if server.stdout.readline() != b"ready\n":
                    raise RuntimeError((folder / "serve.log").read_text()[-2000:])
                compare(folder, f"http://127.0.0.1:{port}")
            finally:
                server.communicate(timeout=180)


def compare(folder, base):
    from components.telemetry.endpoint import announced

    body = f'{{"key":"KEY","json":{COLUMN_JSON}}}'
    while True:  # until the candidate is loaded in both replicas
        models = [httpx.get(f"{base}/bench/v1/model").json() for _ in range(8)]
        if all(m["candidate"] for m in models) and len({m["replica"] for m in models}) == 2:
            break
        time.sleep(0.2)
    ours = {int(f.rsplit("-", 1)[1]) for f in announced(folder)}
    gateway = (f"{base}/bench/v1/predict", body, ours)
    plain, tuned = ((f"{base}/{name}/predict", COLUMN_JSON, replicas_of(base, name)) for name in ("bare", "tuned"))
    answer = httpx.post(gateway[0], content=body).json()
    print(f"wrk, {machine()}")
    print(f"answer: {len(msgspec.json.encode(answer))} bytes; cold start: {models[0]['cold_start']}")
    for url, what, _ in (plain, tuned, gateway):
        load(url, what, seconds=2)
    sides = {"bare ingress": plain, "bare, tuned": tuned, "gateway": gateway}
    for connections in (32, 1):
        alternate(sides, connections)
    protocols(base, gateway)
    if SIDES_ONLY:
        return
    others(folder, gateway)
    price(answer)
    print(f"records lost by one replica: {lost(f'{base}/bench'):.0f}; {machine()}")


def protocols(base, gateway):
    """The gateway's own protocol, Open Inference over HTTP and over gRPC."""
    if shutil.which("h2load") is None:
        print("gRPC: skipped, h2load is not installed (apt-get install nghttp2-client)")
        return
    import grpc

    over_http, frame = infer_request(COLUMN_JSON)
    address = f"127.0.0.1:{os.environ['COHOBATE_GATEWAY_GRPC_PORT']}"
    with grpc.insecure_channel(address) as channel:  # h2load does not read gRPC's statuses
        channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(frame[5:])
    sides = {
        "native": gateway,
        "Open Inference, HTTP": (f"{base}/bench/v2/models/bench/infer", over_http, gateway[2]),
        "Open Inference, gRPC": (address, frame, gateway[2]),
    }
    for connections in (32, 1):
        alternate(sides, connections)


def replicas_of(base, name):
    """The processes of both replicas of a bare ingress."""
    found, deadline = set(), time.monotonic() + 60
    while len(found) < 2:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{name}: {len(found)} replicas answer, not 2")
        with contextlib.suppress(httpx.HTTPError, ValueError):
            found.add(int(httpx.get(f"{base}/{name}/pid").text))
    return found


def lost(gateway):
    """Records that the replica which answers has lost."""
    lines = httpx.get(f"{gateway}/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("cohobate_telemetry_dropped{"))


SIDES_ONLY = bool(os.environ.get("COHOBATE_BENCH_SIDES_ONLY"))
"""Only the gateway and the bare ingress."""

if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(Path(sys.argv[2]))
    else:
        main()
