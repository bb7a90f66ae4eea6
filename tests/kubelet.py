"""A kubelet for pods whose addresses are those of :mod:`tests.machines`: it runs what they declare, on those hosts.

A pod's containers start there with their environment and secrets, its init containers before them; its readiness is
what its probe says; when it is deleted, its hook is called and then it ends. There are no images: the package is the
one that runs the tests. Names of Services stand for their first pod.
"""

import base64
import contextlib
import re
import ssl
import subprocess
import threading

import httpx
import psutil
import yaml

from tests.machines import environment
from tests.waiting import wait_for

LOOK_SECONDS = 0.3
SECONDS = 600
"""How long anything may take on a busy machine."""


def api_of(cluster, **options):
    """A client of the API server, which may do everything."""
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    token, server = config["users"][0]["user"]["token"], config["clusters"][0]["cluster"]["server"]
    context = ssl.create_default_context(cafile=cluster.folder / "pki/ca.crt")
    return httpx.Client(
        base_url=server, headers={"Authorization": f"Bearer {token}"}, verify=context, timeout=SECONDS, **options
    )


class Declared:
    """What pods of a namespace are given from its ConfigMaps and Secrets."""

    def __init__(self, api, namespace):
        self.api, self.namespace = api, namespace

    def get(self, kind, name=""):
        answer = self.api.get(f"/api/v1/namespaces/{self.namespace}/{kind}/{name}".rstrip("/"))
        if answer.status_code == 404:
            return None
        return answer.raise_for_status().json()

    def data(self, kind, reference):
        found = self.get(kind, reference["name"])
        if found is None:
            assert reference.get("optional"), reference
            return {}
        data = found.get("data", {})
        if kind == "secrets":
            return {key: base64.b64decode(value).decode() for key, value in data.items()}
        return data

    def environment(self, container, pod):
        """The container's variables, as a kubelet makes them."""
        found = environment()
        for source in container.get("envFrom", ()):
            for kind, key in (("configmaps", "configMapRef"), ("secrets", "secretRef")):
                if key in source:
                    found |= self.data(kind, source[key])
        for one in container.get("env", ()):
            found[one["name"]] = self._value(one, pod, found)
        return found

    def _value(self, one, pod, found):
        if "valueFrom" not in one:
            return expanded(one.get("value", ""), found)
        ((kind, of),) = one["valueFrom"].items()
        if kind == "configMapKeyRef":
            return self.data("configmaps", of)[of["key"]]
        if kind == "secretKeyRef":
            return self.data("secrets", of)[of["key"]]
        assert kind == "fieldRef", one
        path = of["fieldPath"]
        if label := re.fullmatch(r"metadata\.labels\['(.+)'\]", path):
            return pod["metadata"]["labels"][label[1]]
        known = {"metadata.name": lambda: pod["metadata"]["name"], "status.podIP": lambda: pod["status"]["podIP"]}
        return known[path]()

    def files(self, pod):
        """The contents of the projected secrets by file name."""
        found = {}
        for volume in pod["spec"].get("volumes", ()):
            for source in volume.get("projected", {}).get("sources", ()):
                if "secret" in source:
                    data = self.data("secrets", source["secret"])
                    items = source["secret"].get("items") or [{"key": key, "path": key} for key in data]
                    found |= {item["path"]: data[item["key"]] for item in items}
        return found


def expanded(text, variables):
    """``$(NAME)`` as Kubernetes replaces it."""
    return re.sub(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)", lambda m: variables.get(m[1], m[0]), text)


class Kubelet:
    """Of all hosts, for one namespace. ``known``: addresses of what is no pod, by name. Use as a context manager."""

    def __init__(self, cluster, hosts, namespace, known, logs):
        self.hosts, self.namespace, self.known, self.logs = hosts, namespace, known, logs
        self.api = api_of(cluster)
        self.declared = Declared(self.api, namespace)
        self.addresses = {hosts.address(n): n for n in range(1, 250)}
        self._pods, self._over = {}, threading.Event()
        self._thread = threading.Thread(target=self._run, name="kubelet", daemon=True)
        self.failed = None

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()
        for one in self._pods.values():
            one.end(gracefully=False)
        self.api.close()

    def _run(self):
        try:
            while not self._over.wait(LOOK_SECONDS):
                self._look()
        except Exception as error:
            self.failed = error
            raise

    def _look(self):
        there = {p["metadata"]["uid"]: p for p in self.declared.get("pods")["items"]}
        for uid, pod in there.items():
            address = pod.get("status", {}).get("podIP")
            if uid not in self._pods and address in self.addresses:
                self._pods[uid] = Running(self, pod, self.addresses[address])
        for uid in [uid for uid in self._pods if uid not in there]:
            threading.Thread(target=self._pods.pop(uid).end, daemon=True).start()

    def names(self):
        """What a cluster's DNS knows: each Service, as the address of its first pod."""
        found = dict(self.known)
        for one in self.declared.get("endpoints")["items"]:
            subsets = [s for s in one.get("subsets", ()) if s.get("addresses") or s.get("notReadyAddresses")]
            if subsets:
                name, first = one["metadata"]["name"], (subsets[0].get("addresses") or subsets[0]["notReadyAddresses"])
                full = f"{name}.{self.namespace}.svc"
                found |= dict.fromkeys((name, full, f"{full}.cluster.local"), first[0]["ip"])
        return found


class Running:
    """A pod that runs on a host."""

    def __init__(self, kubelet, pod, host):
        self.kubelet, self.pod, self.host = kubelet, pod, host
        self.name = pod["metadata"]["name"]
        (self.container,) = pod["spec"]["containers"]
        self.log = kubelet.logs / f"{self.name}.log"
        self._process, self._over = None, threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def _run(self):
        kubelet, ready = self.kubelet, True
        probe = self.container.get("readinessProbe")
        if probe:
            ready = self._tell(False)
        env = kubelet.declared.environment(self.container, self.pod)
        if asked := env.get("FQ_RAY_IP"):
            wait_for(lambda: self._over.is_set() or asked in kubelet.names(), SECONDS)
        kubelet.hosts.names(self.host, {**kubelet.names(), self.name: kubelet.hosts.address(self.host)})
        for file, content in kubelet.declared.files(self.pod).items():
            kubelet.hosts.run(self.host, "sh", "-c", f"cat > /run/secrets/cohobate/{file}", input=content, check=True)
        for init in self.pod["spec"].get("initContainers", ()):
            words = [*init["command"], *init.get("args", ())]
            first = kubelet.declared.environment(init, self.pod)
            while not self._over.is_set():
                done = kubelet.hosts.run(self.host, *words, env=first, timeout=SECONDS)
                if done.returncode == 0:
                    break
                self.log.write_text(done.stdout + done.stderr)
        with self._lock:
            if self._over.is_set():
                return
            words = [expanded(w, env) for w in (*self.container["command"], *self.container.get("args", ()))]
            self._process = kubelet.hosts.start(self.host, *words, env=env, log=self.log)
        while probe and not self._over.wait(probe.get("periodSeconds", 10)):
            command = probe["exec"]["command"]
            done = kubelet.hosts.run(self.host, *command, env=env)
            if (done.returncode == 0) != ready and not self._over.is_set():
                ready = self._tell(done.returncode == 0)

    def _tell(self, ready):
        conditions = [{"type": kind, "status": str(ready)} for kind in ("Ready", "ContainersReady")]
        place = f"/api/v1/namespaces/{self.kubelet.namespace}/pods/{self.name}/status"
        kind = {"Content-Type": "application/strategic-merge-patch+json"}
        answer = self.kubelet.api.patch(place, json={"status": {"conditions": conditions}}, headers=kind)
        assert answer.status_code in (200, 404), answer.text
        return ready

    def end(self, gracefully=True):
        """As when the pod is deleted: its hook, SIGTERM, and after a while SIGKILL."""
        with self._lock:
            self._over.set()
        if self._process is not None:
            hook = self.container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command")
            if hook and gracefully:
                self.kubelet.hosts.run(self.host, *hook)
            ended(self._process, self.pod["spec"].get("terminationGracePeriodSeconds", 30) if gracefully else 0)
        if gracefully:
            self._thread.join()


def ended(process, seconds):
    """A host's process is a child of the one that entered the host: both end, at last by force."""
    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    for one in family if seconds else ():
        with contextlib.suppress(psutil.NoSuchProcess):
            one.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds or 0.1)
    for one in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    process.kill()
    process.wait()
