"""A double of the Kubeflow Pipelines API server, which answers as the real one was seen to answer.

What it does is what a server of version 2.17 (source of 2026-08-21), with its scheduled-workflow controller, was seen
to do on 2026-11-29 with kfp SDK 2.16.1: single-user and multi-user mode, tokens and namespaces, bodies with unknown
fields, parameters, duplicates, cron, concurrency, two documents. ``tests/pipelines/test_kubeflow_double.py`` states it
row by row. ``FIELDS`` is its published API (v2beta1, 2.17.0), as far as runs, pipelines and schedules need it.
"""

import contextlib
import json
import re
import threading
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import yaml
from cronsim import CronSim

AUDIENCE = "pipelines.kubeflow.org"

FIELDS = {
    "v2beta1Experiment": (
        "experiment_id", "display_name", "description", "created_at", "namespace", "storage_state",
        "last_run_created_at",
    ),
    "v2beta1Pipeline": (
        "pipeline_id", "display_name", "name", "description", "created_at", "namespace", "error", "tags",
    ),
    "v2beta1PipelineVersion": (
        "pipeline_id", "pipeline_version_id", "display_name", "name", "description", "created_at", "package_url",
        "code_source_url", "pipeline_spec", "error", "tags",
    ),
    "v2beta1Run": (
        "experiment_id", "run_id", "display_name", "storage_state", "description", "pipeline_version_id",
        "pipeline_spec", "pipeline_version_reference", "runtime_config", "service_account", "created_at",
        "scheduled_at", "finished_at", "state", "error", "run_details", "recurring_run_id", "state_history",
        "plugins_input", "plugins_output",
    ),
    "v2beta1RecurringRun": (
        "recurring_run_id", "display_name", "description", "pipeline_version_id", "pipeline_spec",
        "pipeline_version_reference", "runtime_config", "service_account", "max_concurrency", "trigger", "mode",
        "created_at", "updated_at", "status", "error", "no_catchup", "namespace", "experiment_id", "plugins_input",
    ),
    "v2beta1PipelineVersionReference": ("pipeline_id", "pipeline_version_id"),
    "v2beta1RuntimeConfig": ("parameters", "pipeline_root"),
    "v2beta1Trigger": ("cron_schedule", "periodic_schedule"),
    "v2beta1CronSchedule": ("start_time", "end_time", "cron"),
}  # fmt: skip
"""The members of each message that is sent here."""

NESTED = {
    "pipeline_version_reference": "v2beta1PipelineVersionReference",
    "runtime_config": "v2beta1RuntimeConfig",
    "trigger": "v2beta1Trigger",
    "cron_schedule": "v2beta1CronSchedule",
}

TYPES = {
    "STRING": str,
    "NUMBER_INTEGER": (int, float),
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": bool,
    "LIST": list,
    "STRUCT": dict,
}

CODES = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 500: 13}
"""gRPC's code of each status."""

SHORTHANDS = {
    "@yearly": "0 0 0 1 1 *", "@annually": "0 0 0 1 1 *", "@monthly": "0 0 0 1 * *", "@weekly": "0 0 0 * * 0",
    "@daily": "0 0 0 * * *", "@midnight": "0 0 0 * * *", "@hourly": "0 0 * * * *",
}  # fmt: skip

BOUNDS = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
NAMED = {
    4: ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"],
    5: ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"],
}


class Refusal(Exception):
    def __init__(self, status, message):
        super().__init__(message)
        self.status, self.message = status, message


def six_fields(cron):
    """The six fields as the server reads them: five of them begin with the second, and the weekday is any."""
    fields = SHORTHANDS.get(cron, cron).split()
    if len(fields) not in (5, 6):
        raise Refusal(400, f"Expected 5 to 6 fields, found {len(fields)}: {cron}")
    fields += ["*"] * (6 - len(fields))
    for at, text in enumerate(fields):
        low, high = BOUNDS[at]
        for part in text.upper().split(","):
            span, _, step = part.partition("/")
            ends = ["*"] if span in ("*", "?") else span.split("-")
            for end in ends:
                known = NAMED.get(at, ())
                number = (known.index(end) + BOUNDS[at][0]) if end in known else int(end) if end.isdigit() else None
                if end != "*" and (number is None or not low <= number <= high):
                    raise Refusal(400, f"Failed to parse int from {end}: {cron}")
            if step and not (step.isdigit() and int(step) > 0):
                raise Refusal(400, f"Step of range should be a positive number: {cron}")
    return " ".join(fields).replace("?", "*")


def check_cron(cron):
    if not re.fullmatch(r"@every (\d+(\.\d+)?(h|m|s|ms))+", cron):
        six_fields(cron)


def fires(cron, after, n):
    """The next times at which the server starts a run, in UTC, which is its zone unless it is set to another."""
    times = CronSim(six_fields(cron), after)
    return [when for _, when in zip(range(n), times, strict=False)]


@dataclass
class Caller:
    """Whose token it is: the user, the namespaces that it may use, and the audience it was issued for."""

    user: str
    namespaces: tuple[str, ...]
    audience: str = AUDIENCE


@dataclass
class Kubeflow:
    """What a server holds. ``requests``: method and path of each one; ``changes``: of those that are no GET.

    ``answered``: when the newest request of each method and path was answered (monotonic seconds).
    ``before`` is called with the handler of each request, and may answer it instead (a proxy, a fault): then it
    returns true.
    """

    multi_user: bool = False
    pipeline_store: str | None = "database"
    callers: dict[str, Caller] = field(default_factory=dict)
    service_account: str = "pipeline-runner"
    before: object = None
    clock: object = time.time
    experiments: dict = field(default_factory=dict)
    pipelines: dict = field(default_factory=dict)
    versions: dict = field(default_factory=dict)
    runs: dict = field(default_factory=dict)
    jobs: dict = field(default_factory=dict)
    requests: list = field(default_factory=list)
    answered: dict = field(default_factory=dict)
    url: str = ""
    lock: object = field(default_factory=threading.RLock)

    @property
    def changes(self):
        return [(method, path) for method, path in self.requests if method != "GET"]

    # Who asks.

    def allow(self, headers, namespace, verb, resource):
        """In multi-user mode, first the namespace, then the token, then whether its user may.

        The namespace is what the request names, or that of the object that it is about.
        """
        if not self.multi_user:
            return
        if not namespace:
            raise Refusal(400, f"Invalid input error: a {resource} cannot have an empty namespace in multi-user mode")
        token = headers.get("Authorization", "").removeprefix("Bearer ")
        caller = self.callers.get(token)
        if caller is None or caller.audience != AUDIENCE:
            raise Refusal(401, "Request header error: there is no user identity header or a valid token")
        if namespace not in caller.namespaces:
            raise Refusal(
                403,
                f"User '{caller.user}' is not authorized with reason: (request: "
                f"namespace:{namespace}, verb:{verb}, group:pipelines.kubeflow.org, resource:{resource})",
            )

    # What it keeps.

    def stamp(self):
        """A moment as the server writes it: in whole seconds."""
        return datetime.fromtimestamp(int(self.clock()), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def namespace_of(self, row):
        """An object's namespace: its own, or that of the experiment that it belongs to."""
        return row.get("namespace") or self.experiments.get(row.get("experiment_id"), {}).get("namespace", "")

    def experiment_of(self, body, namespace):
        found = self.experiments.get(body.get("experiment_id", ""))
        if found is not None:
            return found
        if body.get("experiment_id"):
            raise Refusal(404, f"Experiment {body['experiment_id']} not found")
        for known in self.experiments.values():
            if known["display_name"] == "Default" and known.get("namespace", "") == namespace:
                return known
        return self.keep(self.experiments, "experiment_id", {"display_name": "Default", "namespace": namespace})

    def keep(self, table, key, body):
        row = {**body, key: str(uuid.uuid4()), "created_at": self.stamp()}
        table[row[key]] = row
        return row

    def spec_of(self, body):
        """The pipeline of a run or schedule: its own documents, or those of the version that it refers to."""
        own, reference = body.get("pipeline_spec"), body.get("pipeline_version_reference")
        if own:
            return own.get("pipeline_spec", own)
        if not reference:
            raise Refusal(400, "Invalid input error: a pipeline spec or a pipeline version is needed")
        version = reference.get("pipeline_version_id")
        mine = [v for v in self.versions.values() if v["pipeline_id"] == reference.get("pipeline_id")]
        if version:
            mine = [v for v in mine if v["pipeline_version_id"] == version]
        if not mine:
            raise Refusal(404, f"PipelineVersion {version or 'of ' + str(reference.get('pipeline_id'))} not found")
        found = mine[-1]["pipeline_spec"]  # by the pipeline alone: its newest version
        return found.get("pipeline_spec", found)

    def check_parameters(self, spec, body):
        given = body.get("runtime_config", {}).get("parameters", {})
        known = spec.get("root", {}).get("inputDefinitions", {}).get("parameters", {})
        for name in sorted(set(given) - set(known)):
            raise Refusal(400, f"Invalid input error: parameter {name} is not an input of the pipeline")
        for name, declared in sorted(known.items()):
            if name not in given:
                if not declared.get("isOptional") and "defaultValue" not in declared:
                    raise Refusal(400, f"Invalid input error: input parameter {name} is required and has no value")
                continue
            kind = TYPES[declared["parameterType"]]
            wrong = not isinstance(given[name], kind) or (isinstance(given[name], bool) and kind is not bool)
            if wrong:
                raise Refusal(
                    400, f"Invalid input error: input parameter {name} requires type {declared['parameterType']}"
                )


def check_fields(body, message):
    """Refuse members that the message lacks; they may be written in both of protobuf's ways."""
    known = set(FIELDS[message])
    for name in list(body):
        plain = re.sub(r"(?<!^)([A-Z])", lambda found: "_" + found[1].lower(), name)
        if plain not in known:
            raise Refusal(400, f'proto: unknown field "{name}"')
        body[plain] = body.pop(name)
        if plain in NESTED and isinstance(body[plain], dict):
            check_fields(body[plain], NESTED[plain])
    return body


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _serve(self):
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.world = self.server.world
        split = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(split.query).items()}
        path = split.path.removeprefix(self.server.prefix)
        with self.world.lock:
            self.world.requests.append((self.command, path))
        if self.world.before is not None and self.world.before(self):
            return
        try:
            with self.world.lock:
                self.answer(200, self.route(self.command, path.removeprefix("/apis/v2beta1").split("/")[1:]))
        except Refusal as refusal:
            self.refuse(refusal, upload="/upload" in path)

    do_GET = do_POST = do_DELETE = _serve

    def refuse(self, refusal, *, upload):
        said = refusal.message
        if upload:
            stack = f"{said}\ngithub.com/kubeflow/pipelines/backend/src/common/util.NewInvalidInputError\n\t/go/src/…"
            self.answer(refusal.status, {"error_message": said, "error_details": stack})
            return
        long = f"Failed to serve the request: {said}: {said}"
        details = [{"@type": "type.googleapis.com/google.rpc.Status", "code": CODES[refusal.status], "message": said}]
        self.answer(refusal.status, {"error": long, "code": CODES[refusal.status], "message": long, "details": details})

    def answer(self, status, value, *, kind="application/json"):
        data = value.encode() if isinstance(value, str) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        self.world.answered[self.command, urlsplit(self.path).path] = time.monotonic()

    def log_message(self, *_):
        pass

    # What is asked.

    def route(self, method, parts):
        match method, *parts:
            case "GET", "healthz":
                stored = {"pipeline_store": self.world.pipeline_store} if self.world.pipeline_store else {}
                return {"multi_user": self.world.multi_user, **stored}
            case "GET" | "POST", "experiments":
                return self.experiments(method)
            case "GET" | "POST" | "DELETE", "experiments", which:
                return self.one(self.world.experiments, method, which, "experiments")
            case "GET" | "POST", "pipelines":
                return self.pipelines(method)
            case "GET", "pipelines", "names", name:
                return self.pipeline_by_name(unquote(name))
            case "POST", "pipelines", "upload":
                return self.upload()
            case "POST", "pipelines", "upload_version":
                return self.upload_version(self.query.get("pipelineid", ""))
            case "GET" | "DELETE", "pipelines", which:
                return self.pipeline(method, which)
            case "GET", "pipelines", which, "versions":
                self.owned(self.world.pipelines, which, "list", "pipelines")
                mine = [v for v in self.world.versions.values() if v["pipeline_id"] == which]
                return self.page("pipeline_versions", mine)
            case "GET" | "DELETE", "pipelines", which, "versions", version:
                self.owned(self.world.pipelines, which, method.lower(), "pipelines")
                return self.one(self.world.versions, method, version, "pipelineversions", checked=True)
            case "GET" | "POST", "runs":
                return self.started(method, self.world.runs, "run_id", "v2beta1Run", "runs")
            case "GET" | "POST", "recurringruns":
                return self.started(method, self.world.jobs, "recurring_run_id", "v2beta1RecurringRun", "recurringRuns")
            case "GET" | "DELETE", "runs", which:
                return self.one(self.world.runs, method, which, "runs")
            case "GET" | "DELETE", "recurringruns", which:
                return self.one(self.world.jobs, method, which, "jobs")
        raise Refusal(404, "Not Found")

    def json(self, message):
        try:
            body = json.loads(self.body)
        except ValueError as error:
            raise Refusal(400, f"proto: syntax error: {error}") from error
        return check_fields(body, message)

    def allow(self, namespace, verb, resource):
        self.world.allow(self.headers, namespace, verb, resource)

    def owned(self, table, which, verb, resource):
        row = table.get(which)
        if row is None:
            raise Refusal(404, f"{which} not found")
        self.allow(self.world.namespace_of(row), verb, resource)
        return row

    def one(self, table, method, which, resource, *, checked=False):
        row = table.get(which) if checked else self.owned(table, which, method.lower(), resource)
        if row is None:
            raise Refusal(404, f"{which} not found")
        if method == "DELETE":
            del table[which]
            return {}
        return row

    def page(self, name, rows):
        for predicate in json.loads(self.query.get("filter") or "{}").get("predicates", ()):
            wanted = predicate.get("stringValue", predicate.get("string_value"))
            rows = [row for row in rows if row.get(predicate["key"], row.get("display_name")) == wanted]
        start, size = int(self.query.get("page_token") or 0), int(self.query.get("page_size") or 20)
        shown = {name: rows[start : start + size], "total_size": len(rows)}
        return shown | ({"next_page_token": str(start + size)} if start + size < len(rows) else {})

    def experiments(self, method):
        if method == "GET":
            namespace = self.query.get("namespace", "")
            self.allow(namespace, "list", "experiments")
            return self.page("experiments", self.of(self.world.experiments, namespace))
        body = self.json("v2beta1Experiment")
        self.allow(body.get("namespace", ""), "create", "experiments")
        for known in self.of(self.world.experiments, body.get("namespace", "")):
            if known["display_name"] == body["display_name"]:
                raise Refusal(409, f"Experiment {body['display_name']} already exist. Please choose another name")
        return self.world.keep(self.world.experiments, "experiment_id", body)

    def of(self, table, namespace):
        return [row for row in table.values() if not self.world.multi_user or row.get("namespace") == namespace]

    def pipelines(self, method):
        if method == "GET":
            self.allow(self.query.get("namespace", ""), "list", "pipelines")
            return self.page("pipelines", self.of(self.world.pipelines, self.query.get("namespace", "")))
        return self.make_pipeline(self.json("v2beta1Pipeline"))

    def make_pipeline(self, body):
        self.allow(body.get("namespace", ""), "create", "pipelines")
        body.setdefault("name", body.get("display_name"))
        for known in self.of(self.world.pipelines, body.get("namespace", "")):
            if known["name"] == body["name"]:
                raise Refusal(409, f"Already exist error: a pipeline with the name {body['name']} already exists")
        return self.world.keep(self.world.pipelines, "pipeline_id", {"display_name": body["name"], **body})

    def pipeline_by_name(self, name):
        self.allow(self.query.get("namespace", ""), "get", "pipelines")
        for known in self.of(self.world.pipelines, self.query.get("namespace", "")):
            if known["name"] == name:
                return known
        raise Refusal(404, f"Pipeline {name} not found")

    def pipeline(self, method, which):
        row = self.owned(self.world.pipelines, which, method.lower(), "pipelines")
        held = any(v["pipeline_id"] == which for v in self.world.versions.values())
        if method == "DELETE" and held and self.query.get("cascade") != "true":
            raise Refusal(400, f"Invalid input error: pipeline {row['name']} has versions")
        return self.one(self.world.pipelines, method, which, "pipelines", checked=True)

    def documents(self):
        """The uploaded file's documents: a pipeline, and what is special to a platform where there is any."""
        kind = self.headers["Content-Type"].encode()
        form = message_from_bytes(b"Content-Type: " + kind + b"\r\n\r\n" + self.body)
        for part in form.get_payload():
            if part.get_param("name", header="Content-Disposition") == "uploadfile":
                found = [d for d in yaml.load_all(part.get_payload(decode=True), yaml.CSafeLoader) if d]
                if not found or "pipelineInfo" not in found[0]:
                    raise Refusal(400, "Invalid input error: unknown pipeline spec format")
                return found[0] if len(found) == 1 else {"pipeline_spec": found[0], "platform_spec": found[1]}
        raise Refusal(400, "Invalid input error: Failed to read pipeline from file")

    def described(self):
        named = {n: self.query[n] for n in ("name", "display_name", "description", "namespace") if n in self.query}
        return named | ({"tags": json.loads(self.query["tags"])} if "tags" in self.query else {})

    def upload(self):
        body = self.described()
        made = self.make_pipeline(dict(body))
        body.pop("namespace", None)
        version = {**body, "pipeline_id": made["pipeline_id"], "pipeline_spec": self.documents()}
        self.world.keep(self.world.versions, "pipeline_version_id", version)
        return made

    def upload_version(self, which):
        self.owned(self.world.pipelines, which, "update", "pipelines")
        body = self.described()
        for known in self.world.versions.values():
            if known["pipeline_id"] == which and known["name"] == body["name"]:
                raise Refusal(409, f"Already exist error: a version with the name {body['name']} already exists")
        body = {"display_name": body["name"], **body, "pipeline_id": which, "pipeline_spec": self.documents()}
        return self.world.keep(self.world.versions, "pipeline_version_id", body)

    def started(self, method, table, key, message, name):
        resource = "runs" if name == "runs" else "jobs"
        if method == "GET":
            namespace = self.query.get("namespace", "")
            if which := self.query.get("experiment_id"):
                self.owned(self.world.experiments, which, "list", resource)
                return self.page(name, [row for row in table.values() if row["experiment_id"] == which])
            self.allow(namespace, "list", resource)
            return self.page(name, self.of(table, namespace))
        body = self.json(message)
        namespace = self.world.namespace_of(body)
        self.allow(namespace, "create", resource)
        experiment = self.world.experiment_of(body, namespace)
        self.world.check_parameters(self.world.spec_of(body), body)
        body |= {"experiment_id": experiment["experiment_id"], "namespace": experiment.get("namespace", "")}
        body.setdefault("service_account", self.world.service_account)
        if name == "recurringRuns":
            self.check_schedule(body)
            body["status"] = "ENABLED" if body.get("mode") == "ENABLE" else "DISABLED"
        else:
            body.pop("namespace")
            body["state"] = "PENDING"
        return self.world.keep(table, key, body)

    def check_schedule(self, body):
        check_cron(body.get("trigger", {}).get("cron_schedule", {}).get("cron", ""))
        concurrency = str(body.get("max_concurrency", ""))
        if not concurrency.isdigit() or not 1 <= int(concurrency) <= 10:
            raise Refusal(400, "Invalid input error: The max_concurrency must be in range [1, 10]")


class Server(ThreadingHTTPServer):
    request_queue_size = 64

    def __init__(self, world, prefix="", context=None):
        self.world, self.prefix = world, prefix
        super().__init__(("127.0.0.1", 0), Handler)
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        scheme = "http" if context is None else "https"
        world.url = f"{scheme}://localhost:{self.server_address[1]}{prefix}"

    def handle_error(self, request, client_address):
        """A client that went away, or that does not trust the certificate, is none of the server's business."""


@contextlib.contextmanager
def kubeflow(*, prefix="", context=None, **options):
    """A server on the loopback for as long as the block runs."""
    world = Kubeflow(**options)
    server = Server(world, prefix, context)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield world
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def team(**options):
    """Options of a server in multi-user mode: ``s3cret`` is ada's token, who may use the namespace ``team``."""
    callers = {
        "s3cret": Caller("ada", ("team",)),
        "elsewhere": Caller("ada", ("team",), audience="istio-ca"),
    }
    return {"multi_user": True, "callers": callers, "service_account": "default-editor", **options}
