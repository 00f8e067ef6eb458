"""Kubernetes, offline: what would be sent to a cluster agrees with the operator's own schema."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from genret_dask.clusters import ClusterSpec, cluster_class, load_cluster_spec
from genret_dask.clusters.keywords import keywords

operator = pytest.importorskip("dask_kubernetes.operator")
jsonschema = pytest.importorskip("jsonschema")

SPECS = Path(__file__).parents[2] / "cluster_specs"
CRD = "deployment/helm/dask-kubernetes-operator/crds/daskcluster.yaml"


@pytest.fixture(scope="module")
def check():
    """Refuses what is not a DaskCluster; a field that the schema does not know is refused too."""
    (version,) = yaml.safe_load((Path(operator.__file__).parent / CRD).read_text())["spec"][
        "versions"
    ]
    schema = version["schema"]["openAPIV3Schema"]
    for part in ("scheduler", "worker"):
        pod = schema["properties"]["spec"]["properties"][part]["properties"]["spec"]
        close(pod)
    return jsonschema.Draft202012Validator(schema).validate


def close(schema):
    """A server drops fields it does not know; here they are mistakes."""
    if isinstance(schema, list):
        for item in schema:
            close(item)
    elif isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict):
            schema.setdefault("additionalProperties", False)
        for item in schema.values():
            close(item)


def test_the_schema_refuses_a_wrong_field(check):
    manifest = yaml.safe_load((SPECS / "kubernetes" / "daskcluster.yaml").read_text())
    manifest["spec"]["worker"]["spec"]["containers"][0]["images"] = "x"
    with pytest.raises(jsonschema.ValidationError, match="images"):
        check(manifest)


def test_the_shipped_manifest_is_a_cluster_under_tls(check):
    manifest = yaml.safe_load((SPECS / "kubernetes" / "daskcluster.yaml").read_text())
    check(manifest)
    assert manifest["apiVersion"] == "kubernetes.dask.org/v1"
    for part in ("scheduler", "worker"):
        spec = manifest["spec"][part]["spec"]
        (container,) = spec["containers"]
        environment = {item["name"]: item["value"] for item in container["env"]}
        assert environment["DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION"] == "True"
        assert environment["DASK_DISTRIBUTED__COMM__TLS__MIN_VERSION"] == "1.3"
        assert environment["DASK_SCHEDULER_ADDRESS"].startswith("tls://genret-dask-scheduler:")
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted <= {volume["name"] for volume in spec["volumes"]} and "pki" in mounted
    service = manifest["spec"]["scheduler"]["service"]
    assert service["type"] == "ClusterIP"
    assert service["selector"]["dask.org/cluster-name"] == manifest["metadata"]["name"]
    assert load_cluster_spec(SPECS / "kubernetes.yaml").address == "tls://127.0.0.1:8786"


def test_what_kube_cluster_would_create(check):
    spec = ClusterSpec.model_validate(
        {
            "module": "dask_kubernetes.operator",
            "class": "KubeCluster",
            "kwargs": {
                "name": "genret-dask",
                "image": "registry.example.org/genret-dask:0.1.0",
                "worker_command": ["dask", "worker", "--nthreads", "1"],
                "resources": {"limits": {"cpu": "1", "memory": "4Gi"}},
            },
            "adapt": {"minimum": 1, "maximum": 4},
            "environment": {"OMP_NUM_THREADS": 1},
        }
    )
    assert cluster_class(spec).__name__ == "KubeCluster"
    built = operator.make_cluster_spec(**keywords(spec), n_workers=1)
    check(built)
    (container,) = built["spec"]["worker"]["spec"]["containers"]
    assert {"name": "OMP_NUM_THREADS", "value": "1"} in container["env"]
    assert container["args"][:4] == ["dask", "worker", "--nthreads", "1"]
