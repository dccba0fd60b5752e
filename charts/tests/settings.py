"""The schema of `config` against the binary's own settings: both name the same fields."""

import json
import re

from tools import CHART, ROOT

# section of the file -> where the struct is, and what the chart sets by itself
STRUCTS = {
    (): ("cli/src/settings.rs", "Settings", {"telemetry"}),
    ("amqp",): ("cli/src/settings.rs", "Amqp", {"url", "ca_file", "cert_file", "key_file"}),
    ("redis",): ("cli/src/settings.rs", "Redis", {"url", "prefix", "ca_file", "cert_file", "key_file"}),
    ("coordinator",): ("coordinator/src/config.rs", "Config",
                       {"listen", "grace", "access", "bootstrap_key_file", "tls"}),
    ("worker",): ("worker/src/config.rs", "Config", {"pools", "slots", "drain_ms"}),
}


def fields(path, name):
    text = (ROOT / path).read_text()
    body = re.search(rf"pub struct {name} \{{\n(.*?)\n\}}", text, re.S)
    return set(re.findall(r"^    pub (\w+):", body[1], re.M)) if body else set()


def differences():
    config = json.loads((CHART / "values.schema.json").read_text())["properties"]["config"]
    for section, (path, name, ours) in STRUCTS.items():
        schema = config
        for part in section:
            schema = schema["properties"][part]
        known = set(schema["properties"])
        theirs = fields(path, name)
        where = ".".join(("config", *section))
        if not theirs:
            yield f"{path} has no struct {name} any more"
            continue
        for field in sorted(theirs - known - ours):
            yield f"{where}: {path} knows `{field}`, charts/trireme/values.schema.json does not"
        for field in sorted(known - theirs):
            yield f"{where}: values.schema.json knows `{field}`, {path} does not"


def loose(schema=None, path="#"):
    """Objects of the schema that let unknown fields pass, but those named as Kubernetes' or as schemas."""
    if schema is None:
        schema = json.loads((CHART / "values.schema.json").read_text())
    if isinstance(schema, dict):
        if schema.get("type") == "object" and "additionalProperties" not in schema and "description" not in schema:
            yield path
        for key, value in schema.items():
            yield from loose(value, f"{path}/{key}")
    elif isinstance(schema, list):
        for at, value in enumerate(schema):
            yield from loose(value, f"{path}/{at}")
