"""Four sites of a federation and who mixes, each a platform on a host of its own: ``make hosts``.

One site sees two of the three classes alone, one is cut off from the network while it hands on its answers, and one
lies. Files go through an object store; nothing else is common to the hosts.
"""

import contextlib
import json
import os

import pytest
import yaml

from tests import machines, object_store
from tests.hosts import federated
from tests.kubelet import SECONDS

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(3600),
    pytest.mark.skipif("COHOBATE_TEST_HOSTS" not in os.environ, reason="make hosts: it takes minutes"),
]

SITES = {"north": (1, "abc"), "south": (2, "abc"), "west": (3, "ab"), "coast": (4, "abc"), "liar": (5, "abc")}
"""By name: the host, and the classes that it sees."""

MIXER, CUT, LIAR = 6, "coast", "liar"
ROOT = "/srv/federation"


class Federation:
    """The hosts, and what is done there."""

    def __init__(self, hosts, storage):
        self.hosts = hosts
        self.env = machines.environment(COHOBATE_HOME="/srv/cohobate", COHOBATE_ACTOR="ana", **storage)

    def run(self, host, *argv, **options):
        return self.hosts.run(host, *map(str, argv), env=self.env, timeout=SECONDS, **options)

    def told(self, host, *argv):
        done = self.run(host, *argv)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def does(self, host, what, *argv):
        """One of the functions of :mod:`tests.hosts.federated` there, and what it gives."""
        return json.loads(
            self.told(host, "python", "-W", "ignore", "-m", "tests.hosts.federated", what, *argv).splitlines()[-1]
        )

    def send(self, host, name):
        return self.does(host, "sent", f"{ROOT}/{name}", f"s3://{object_store.BUCKET}/{name}")

    def came(self, host, name):
        """Whether a file is in the object store; it is fetched from there."""
        return self.does(host, "fetched", f"s3://{object_store.BUCKET}/{name}", f"{ROOT}/{name}")["came"]

    def fetch(self, host, name):
        assert self.came(host, name), name

    def write(self, host, name, text):
        self.told(host, "mkdir", "-p", ROOT)
        self.hosts.run(host, "sh", "-c", f"cat > {ROOT}/{name}", input=text, check=True)

    def answer(self, name):
        host, _ = SITES[name]
        asked = ("--spec", f"{ROOT}/letters.yaml", "--public", f"{ROOT}/public.jsonl", "--federation", "banks")
        options = ("--site", name, "--round", 1, "--key", f"{ROOT}/site.pem", "-o", f"{ROOT}/{name}-1.answers.tar")
        return self.told(host, "cohobate", "federate", "answer", *asked, *options)


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    with contextlib.ExitStack() as stack:
        hosts = stack.enter_context(machines.running(tmp_path_factory.mktemp("federation") / "hosts", 6))
        storage = stack.enter_context(object_store.running(hosts.outside))
        for host in range(1, 7):
            hosts.names(host, {})
        yield Federation(hosts, storage)


def test_sites_that_share_no_inputs_get_a_student_that_knows_what_all_of_them_know(federation):
    public = "".join(json.dumps({"text": text}) + "\n" for text, _ in federated.texts(0, 300))
    agreed = {"name": "banks", "space": "letters@1", "classes": ["a", "b", "c"], "rule": "geometric_median",
              "min_sites": 3, "most_distance": 0.5, "sites": {}}  # fmt: skip
    for seed, (name, (host, known)) in enumerate(SITES.items(), start=1):
        federation.write(host, "public.jsonl", public)
        assert federation.does(host, "site", ROOT, seed, known)["decision"] == "promote"
        federation.told(host, "cp", f"{ROOT}/site.pub", f"{ROOT}/{name}.pub")
        federation.send(host, f"{name}.pub")
        federation.fetch(MIXER, f"{name}.pub")
        agreed["sites"][name] = {"key": f"{name}.pub"}
        assert "answers in round 1" in federation.answer(name)
    # one lies, and one is cut off as it hands on its file
    liar = SITES[LIAR][0]
    federation.does(liar, "turned", ROOT, f"{ROOT}/{LIAR}-1.answers.tar")
    federation.hosts.script("cut", federation.hosts.folder, SITES[CUT][0], check=True)
    upload = ("-m", "tests.hosts.federated", "sent", f"{ROOT}/{CUT}-1.answers.tar")
    words = ("timeout", 30, "python", *upload, f"s3://{object_store.BUCKET}/{CUT}-1.answers.tar")
    assert federation.run(SITES[CUT][0], *words).returncode != 0
    for name in SITES:
        if name != CUT:
            federation.send(SITES[name][0], f"{name}-1.answers.tar")
    files = [f"{ROOT}/{name}-1.answers.tar" for name in SITES if federation.came(MIXER, f"{name}-1.answers.tar")]
    assert files == [f"{ROOT}/{name}-1.answers.tar" for name in SITES if name != CUT]
    # who mixes goes on without the two
    federation.write(MIXER, "public.jsonl", public)
    federation.write(MIXER, "federation.yaml", yaml.safe_dump(agreed))
    federation.write(MIXER, "letters.yaml", federated.SPEC.format(teacher=federated.OWN.format("abc"), start=""))
    asked = ("--spec", f"{ROOT}/letters.yaml", "--public", f"{ROOT}/public.jsonl", "--round", 1, "--json")
    mixture = f"{ROOT}/round-1.mixture.jsonl"
    said = json.loads(
        federation.told(MIXER, "cohobate", "federate", "mix", f"{ROOT}/federation.yaml", *files, *asked, "-o", mixture)
    )
    left = {name: part["left_out"] for name, part in said["sites"].items()}
    assert left == {"north": None, "south": None, "west": None, CUT: "absent", LIAR: "distant"}
    assert said["rows"] == 300
    assert federation.does(MIXER, "mixed", ROOT, mixture, f"{ROOT}/public.jsonl")["decision"] == "promote"
    # the student goes back to the sites, to the one that was cut off too
    federation.told(MIXER, "openssl", "genpkey", "-algorithm", "ed25519", "-out", f"{ROOT}/mixer.pem")
    federation.told(MIXER, "openssl", "pkey", "-in", f"{ROOT}/mixer.pem", "-pubout", "-out", f"{ROOT}/mixer.pub")
    given = f"{ROOT}/round-1.student.tar"
    federation.told(MIXER, "cohobate", "federate", "give", "--spec", f"{ROOT}/letters.yaml", "--federation", "banks",
                    "--round", 1, "--key", f"{ROOT}/mixer.pem", "-o", given)  # fmt: skip
    for name in ("mixer.pub", "round-1.student.tar"):
        federation.send(MIXER, name)
    federation.hosts.script("heal", federation.hosts.folder, SITES[CUT][0], check=True)
    for name in ("west", CUT):
        host, known = SITES[name]
        for file in ("mixer.pub", "round-1.student.tar"):
            federation.fetch(host, file)
        told = federation.told(host, "cohobate", "federate", "take", given, "--federation", "banks", "--public-key",
                               f"{ROOT}/mixer.pub", "--into", f"{ROOT}/round-1")  # fmt: skip
        start = yaml.safe_load(told)["student"]["start"]
        begun = federation.does(host, "begun", ROOT, f"{ROOT}/round-1/model.onnx", start["digest"], name, known)
        assert begun["decision"] == "promote" and begun["parent"] is None
        # a class that only others see, it keeps
        assert begun["given"] >= 0.95 and begun["own"] >= 0.9, begun
