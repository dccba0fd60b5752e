"""The Grafana dashboards: written from charts/dashboards.yaml, every query checked."""

import json
import re
import tempfile

import yaml

import rules
from tools import BIN, CHART, ROOT, call

SOURCE = ROOT / "charts/dashboards.yaml"
QUANTILES = (0.5, 0.95, 0.99)
# of the Prometheus client library of every process
FOREIGN = {"process_cpu_seconds_total"}
SHORT = {"$P": 'namespace=~"$namespace",pool=~"$pool"', "$S": 'namespace=~"$namespace"'}


def filled(query):
    for short, long in SHORT.items():
        query = query.replace(short, long)
    return query.replace("$R", "$__rate_interval")


def queries(panel):
    """Legend and query of each line of a panel."""
    if "quantiles" not in panel:
        return [(legend, filled(query)) for legend, query in panel["queries"].items()]
    name, selector = re.fullmatch(r"(\w+)(\{.*\})", panel["quantiles"]).groups()
    by = panel.get("by", "")
    legend = " ".join("{{%s}}" % label for label in by.split(", ") if label)
    inner = f"sum by ({', '.join(filter(None, (by, 'le')))}) (rate({name}_bucket{selector}[$R]))"
    return [(f"p{q * 100:.0f} {legend}".strip(), filled(f"histogram_quantile({q}, {inner})")) for q in QUANTILES]


def panel(number, told, x, y, width, height):
    stat = told.get("kind") == "stat"
    targets = [{"refId": chr(ord("A") + at), "expr": query, "legendFormat": legend, "instant": stat, "range": not stat,
                "datasource": {"type": "prometheus", "uid": "$datasource"}}
               for at, (legend, query) in enumerate(queries(told))]
    shown = {
        "id": number, "title": told["title"], "type": "stat" if stat else "timeseries",
        "datasource": {"type": "prometheus", "uid": "$datasource"},
        "gridPos": {"x": x, "y": y, "w": width, "h": height},
        "fieldConfig": {"defaults": {"unit": told["unit"], "min": 0}, "overrides": []},
        "targets": targets,
    }
    if "about" in told:
        shown["description"] = told["about"]
    if stat:
        shown["options"] = {"textMode": "value_and_name" if "{{" in targets[0]["legendFormat"] else "value"}
    else:
        shown["options"] = {"legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]},
                            "tooltip": {"mode": "multi", "sort": "desc"}}
    return shown


def panels(rows):
    """Stats six in a row, graphs two."""
    shown, y = [], 0
    for row in rows:
        shown.append({"id": len(shown) + 1, "title": row["title"], "type": "row", "collapsed": False, "panels": [],
                      "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}})
        x, y, high = 0, y + 1, 0
        for told in row["panels"]:
            width, height = (4, 4) if told.get("kind") == "stat" else (12, 8)
            if x + width > 24:
                x, y, high = 0, y + high, 0
            shown.append(panel(len(shown) + 1, told, x, y, width, height))
            x, high = x + width, max(high, height)
        y += high
    return shown


def variable(name, label):
    query = f"label_values({'trireme_build_info' if label == 'namespace' else 'trireme_ready_tasks'}, {label})"
    return {"name": name, "type": "query", "query": query, "definition": query, "refresh": 2, "sort": 1,
            "datasource": {"type": "prometheus", "uid": "$datasource"}, "multi": True, "includeAll": True,
            "allValue": ".*", "current": {"text": "All", "value": "$__all"}}


def dashboard(name, told):
    return {
        "uid": f"trireme-{name}", "title": f"Trireme / {told['title']}", "tags": ["trireme"], "schemaVersion": 39,
        "editable": True, "refresh": "30s", "time": {"from": "now-1h", "to": "now"}, "timezone": "browser",
        "templating": {"list": [
            {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"},
            variable("namespace", "namespace"), variable("pool", "pool"),
        ]},
        "links": [{"type": "dashboards", "tags": ["trireme"], "title": "Trireme", "asDropdown": True}],
        "panels": panels(told["rows"]),
    }


def written(name, told):
    """A line per panel: short, and changes can be told apart."""
    head = dashboard(name, told)
    panels = ",\n".join(json.dumps(panel) for panel in head.pop("panels"))
    return f'{json.dumps(head)[:-1]}, "panels": [\n{panels}\n]}}\n'


def expected():
    """Path and text of every dashboard."""
    told = yaml.safe_load(SOURCE.read_text())
    return {CHART / f"dashboards/{name}.json": written(name, about) for name, about in told.items()}


def wrong():
    """Queries that Prometheus does not take or that name what nobody exports, and metrics that nobody sees."""
    told = yaml.safe_load(SOURCE.read_text())
    asked = [(f"{name}: {panel['title']}", query) for name, about in told.items() for row in about["rows"]
             for panel in row["panels"] for _, query in queries(panel)]
    known, seen = rules.documented(), rules.metrics()
    for where, query in asked:
        # the names of metrics: what stands before a selector
        for name in re.findall(r"\b([a-z_]+)(?=\{)|\b(trireme_[a-z_]+)", query):
            name = name[0] or name[1]
            base = re.sub(r"_(bucket|count|sum)$", "", name)
            seen.add(base)
            if base not in known and name not in FOREIGN:
                yield f"{where}: nobody exports {name}"
    for name in sorted(known - seen):
        yield f"{name} is on no dashboard and in no rule"
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        recorded = [{"record": f"query:{at}", "expr": query.replace("$__rate_interval", "5m")}
                    for at, (_, query) in enumerate(asked)]
        yaml.safe_dump({"groups": [{"name": "queries", "rules": recorded}]}, file)
        file.flush()
        code, out, err = call(BIN / "promtool", "check", "rules", file.name)
        if code:
            yield out + err
