"""The alert rules: checked and tested by promtool, and nothing in them that is nowhere else."""

import re

import yaml

from tools import BIN, CHART, ROOT, RULES, TESTS, call

MANUAL = ROOT / "docs/operations.md"
# of kube-state-metrics, not ours
FOREIGN = re.compile(r"\bkube_[a-z_]+\b")


def alerts():
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def incomplete():
    """What an alert lacks: a field, its entry in the manual, a case that fires, a case that does not."""
    anchors = {re.sub(r"[^\w -]", "", line.lstrip("#").strip().lower()).replace(" ", "-")
               for line in MANUAL.read_text().splitlines() if line.startswith("#")}
    fires, silent = set(), set()
    for path in (TESTS / "rules").glob("*.yaml"):
        for test in yaml.safe_load(path.read_text())["tests"]:
            for case in test["alert_rule_test"]:
                (fires if case["exp_alerts"] else silent).add(case["alertname"])
    for rule in alerts():
        name, notes = rule["alert"], rule.get("annotations", {})
        if not rule.get("for") or rule.get("labels", {}).get("severity") not in ("critical", "warning"):
            yield f"{name} needs `for` and a severity, critical or warning"
        if not notes.get("summary"):
            yield f"{name} has no summary"
        page, _, anchor = notes.get("runbook_url", "").partition("#")
        if page != "docs/operations.md" or anchor not in anchors:
            yield f"{name}: runbook_url leads nowhere"
        if name not in fires:
            yield f"{name} has no test in which it fires"
        if name not in silent:
            yield f"{name} has no test in which it is silent"
    for name in (fires | silent) - {rule["alert"] for rule in alerts()}:
        yield f"{name} is tested and does not exist"


def metrics():
    """Names of our metrics that rules, scalers and the manual's table use, without the endings of histograms."""
    text = "\n".join(rule["expr"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"])
    scaler = (CHART / "templates/worker/scaledobject.yaml").read_text()
    text += "\n" + "\n".join(re.findall(r"query: (.*)", scaler))
    return {re.sub(r"_(bucket|count|sum)$", "", name) for name in re.findall(r"(?<![:\w])trireme_[a-z_]+", text)}


def documented():
    return set(re.findall(r"^\| `(trireme_[a-z_]+)", MANUAL.read_text(), re.M))


def exported():
    """Names that stand as strings in the product's source."""
    names = set()
    for folder in ("cli", "coordinator", "worker", "shared"):
        for path in (ROOT / folder).rglob("*.rs"):
            if "target" not in path.parts and "tests" not in path.parts:
                names.update(re.findall(r'"(trireme_[a-z_]+)"', path.read_text()))
    return names


def promtool():
    """Command and output of each check that fails."""
    tests = sorted((TESTS / "rules").glob("*.yaml"))
    for command in (("check", "rules", RULES), ("test", "rules", *tests)):
        code, out, err = call(BIN / "promtool", *command, cwd=TESTS / "rules")
        yield " ".join(command[:2]), code, out + err
