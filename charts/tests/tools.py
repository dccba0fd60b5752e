"""Paths, and the tools that `setup` has put into .tools."""

import os
import subprocess
from pathlib import Path

import yaml

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parents[1]
CHART = ROOT / "charts/trireme"
RULES = CHART / "rules/trireme.yaml"
K8S = ROOT / "k8s"
BIN = ROOT / ".tools/charts"
HELMS = ("helm4", "helm3")
# of `helm template`, where the value set says nothing else
KUBE_VERSION = "1.33.0"


def call(*command, cwd=ROOT):
    """Exit code and output. A tool that hangs is a failure."""
    # no own settings, plugins or repositories of whoever runs this
    env = {**os.environ, "HELM_CONFIG_HOME": str(BIN / "home"), "HELM_DATA_HOME": str(BIN / "home"),
           "HELM_CACHE_HOME": str(BIN / "home"), "KUBECONFIG": "/dev/null"}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=env, timeout=300,
                          capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def directives(path):
    """`# name: value` lines at the head of a value set."""
    found = {}
    for line in path.read_text().splitlines():
        if line.startswith("# ") and ": " in line:
            name, value = line[2:].split(": ", 1)
            found[name] = value
    return found


def template(helm, values, release="t", namespace="agents", more=()):
    """`helm template` of one value set: exit code, output, errors."""
    said = directives(values)
    versions = said.get("api-versions", "").split()
    return call(BIN / helm / "helm", "template", release, CHART, "--namespace", namespace, "--values", values,
                "--kube-version", said.get("kube-version", KUBE_VERSION),
                *(part for version in versions for part in ("--api-versions", version)), *more)


def objects(text):
    return [found for found in yaml.safe_load_all(text) if found]


def name_of(found):
    return f"{found.get('kind')}/{found.get('metadata', {}).get('name')}"
