"""The plain manifests in k8s/: the chart's own rendering, so that both are the same by construction."""

import tempfile
from pathlib import Path

import yaml

from tools import HELMS, K8S, name_of, objects, template

HEAD = "# Written by charts/tests/run --update from charts/trireme and k8s/values.yaml.\n"
KEDA = {"worker": {"scaling": {"mode": "keda"}}}
MONITORING = {"monitoring": {part: {"enabled": True} for part in
                             ("serviceMonitor", "podMonitor", "prometheusRule", "dashboards")}}


def rendered(more=None):
    """What the chart makes of k8s/values.yaml and `more`, without the marks of Helm."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(more or {}, file)
        file.flush()
        code, out, err = template(HELMS[0], K8S / "values.yaml", "trireme", "trireme", ("--values", file.name))
    if code:
        raise RuntimeError(err)
    for found in objects(out):
        if "helm.sh/hook" in found["metadata"].get("annotations", {}) or found["metadata"]["name"] == "trireme-test":
            continue
        marks = [found["metadata"]["labels"]]
        for labels in marks:
            labels.pop("helm.sh/chart", None)
            labels["app.kubernetes.io/managed-by"] = "kustomize"
        yield found


def expected():
    """Path -> text of every written file."""
    base = list(rendered())
    known = {name_of(found) for found in base}
    files = {}
    for found in base:
        part = found["metadata"]["labels"].get("app.kubernetes.io/component", "shared")
        if found["kind"] == "NetworkPolicy":
            part = "network-policy"
        files.setdefault(K8S / "base" / f"{part}.yaml", []).append(found)
    for path, more in ((K8S / "keda/keda.yaml", KEDA), (K8S / "monitoring/monitoring.yaml", MONITORING)):
        files[path] = [found for found in rendered(more) if name_of(found) not in known]
    return {path: HEAD + "---\n".join(yaml.safe_dump(found, sort_keys=False, width=110) for found in found_in)
            for path, found_in in files.items()}


def kustomizations():
    return sorted(path.parent for path in Path(K8S / "overlays").glob("*/kustomization.yaml"))
