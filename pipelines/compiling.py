"""Compiling the pipelines, by Kubeflow's own compiler: to its intermediate representation, or to Kubernetes objects."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path

from components.contracts.errors import ConfigError
from components.contracts.settings import Settings
from pipelines.compiled import Package, dressed, read


def compile_all(directory: Path, settings: Settings | None = None) -> list[Path]:
    """Compile every pipeline to ``<directory>/<name>.yaml``, ready to upload.

    ``settings``: these name the image that the components run in, which must hold this package, and what the cluster
    gives them; None: the image is the one that the components name, and nothing is given.
    """
    from kfp import compiler

    from pipelines.dags import PIPELINES

    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, pipeline in PIPELINES.items():
        path = directory / f"{name}.yaml"
        compiler.Compiler().compile(pipeline, str(path))
        if settings is not None:
            package = read(path)
            if (made := dressed(package, settings)) != package:
                path.write_text(made.text)
        paths.append(path)
    return paths


def write_manifests(packages: Iterable[Package], directory: Path, namespace: str) -> list[Path]:
    """Write each package as a Pipeline and a PipelineVersion to ``<directory>/<its name>.yaml``.

    A version never changes on the cluster: its name has the digest of its content, so that what differs is another
    version, and what does not can be applied again.

    Raises:
        ConfigError: the namespace is missing.

    """
    if not namespace:
        raise ConfigError("namespace", namespace, "manifests need it: --namespace, or COHOBATE_KFP_NAMESPACE")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # kfp warns of its own internals
        from kfp import compiler, components
        from kfp.compiler.compiler_utils import KubernetesManifestOptions

        directory.mkdir(parents=True, exist_ok=True)
        paths = []
        for package in packages:
            path = directory / f"{package.name}.yaml"
            options = KubernetesManifestOptions(
                pipeline_name=package.name,
                pipeline_display_name=package.name,
                pipeline_version_name=f"{package.name}-{package.version}",
                pipeline_version_display_name=package.version,
                namespace=namespace,
                include_pipeline_manifest=True,
            )
            # The compiler reads a description from the third line of a file, and from nowhere else.
            described = f"#\n#\n# Description: {package.description}\n{package.text}"
            compiler.Compiler().compile(
                components.load_component_from_text(described),
                str(path),
                kubernetes_manifest_options=options,
                kubernetes_manifest_format=True,
            )
            paths.append(path)
    return paths
