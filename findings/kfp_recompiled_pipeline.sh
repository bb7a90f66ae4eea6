#!/usr/bin/env bash
# A compiled Kubeflow pipeline that is read from its file and compiled to Kubernetes objects has lost its description,
# although the file holds it.
#
# Versions: kfp 2.16.1.
# Seen: load_component_from_text takes a description from the third line of the file ("# Description: ..." among its
#   comments), and never from pipelineInfo.description, where the compiler has written it too. A file whose comments
#   were dropped by any YAML tool on its way (yq, Kustomize, safe_dump) becomes, with kubernetes_manifest_format=True, a
#   Pipeline and a PipelineVersion without a description; so does one with a line more above them.
# Expected: the description that stands in the file, wherever its comments are.
# Exits 0 while it behaves so, 1 once it does not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet kfp==2.16.1
cat > "$folder/look.py" <<'PY'
import sys
import warnings

import yaml

warnings.simplefilter("ignore")
from kfp import compiler, components, dsl  # noqa: E402
from kfp.compiler.compiler_utils import KubernetesManifestOptions  # noqa: E402


@dsl.component
def hello(who: str):
    print(who)


@dsl.pipeline(name="greet", description="Greets somebody.")
def greet(who: str):
    hello(who=who)


def described(text):
    """The descriptions of the Kubernetes objects that a pipeline's text is compiled to."""
    options = KubernetesManifestOptions(
        pipeline_name="greet", pipeline_version_name="greet-1", include_pipeline_manifest=True
    )
    compiler.Compiler().compile(
        components.load_component_from_text(text), "objects.yaml",
        kubernetes_manifest_format=True, kubernetes_manifest_options=options,
    )
    return {o["spec"].get("description") for o in yaml.safe_load_all(open("objects.yaml"))}


compiler.Compiler().compile(greet, "whole.yaml")
whole = open("whole.yaml").read()
bare = yaml.safe_dump(yaml.safe_load(whole))
held = yaml.safe_load(bare)["pipelineInfo"]["description"]
seen = held, described(whole), described(bare), described("# a comment\n" + whole)
print("in the file: %r, objects of it: %s, without comments: %s, with one more: %s" % seen)
wanted = "Greets somebody."
sys.exit(0 if seen == (wanted, {wanted}, {None}, {None}) else 1)
PY
cd "$folder"
"$folder/venv/bin/python" "$folder/look.py"
