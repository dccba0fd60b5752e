"""Rendered objects against the schemas of Kubernetes and of the custom resources, unknown fields refused."""

import functools
import os

import jsonschema
import kubernetes_validate
import yaml
from kubernetes_validate import utils

from tools import ROOT

# the oldest that the chart supports, and the newest known
VERSIONS = ("1.30", "1.37")
CRDS = os.environ.get("TRIREME_CRDS") or ROOT.parent / "shared/crds"
# the package reads its 1.5 MB of definitions for each object otherwise
utils.schema_contents = functools.lru_cache(maxsize=None)(utils.schema_contents)


@functools.lru_cache(maxsize=None)
def crds():
    """Schemas by (apiVersion, kind); None where the published CRDs are not at hand."""
    from pathlib import Path
    folder = Path(CRDS)
    if not folder.is_dir():
        return None
    found = {}
    for path in folder.glob("*.yaml"):
        spec = yaml.safe_load(path.read_text())["spec"]
        for version in spec["versions"]:
            schema = closed(version["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {"type": "object"}
            found[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = schema
    return found


def closed(schema):
    """An openAPIV3Schema as JSON schema: what it does not name is refused."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: closed(value) for key, value in schema.items()}
    if schema.pop("x-kubernetes-int-or-string", False):
        schema.pop("type", None)
        schema["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema \
            and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema["additionalProperties"] = False
    return schema


def wrong(found):
    """What is wrong with an object, or None. Raises LookupError for kinds that no schema is at hand for."""
    key = found.get("apiVersion"), found.get("kind")
    if "." in (key[0] or "") and not key[0].split("/")[0].endswith(".k8s.io"):
        if crds() is None:
            raise LookupError(f"{CRDS} is not there")
        if key not in crds():
            return f"no schema of {key} in {CRDS}"
        errors = jsonschema.Draft202012Validator(crds()[key]).iter_errors(found)
        return "; ".join(f"{error.json_path}: {error.message}" for error in errors) or None
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(found, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            return f"Kubernetes {version}: {'.'.join(map(str, error.path))}: {error.message}"
        except kubernetes_validate.SchemaNotFoundError as error:
            return error.message
    return None
