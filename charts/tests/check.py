"""Every check of the chart and its neighbours. One line each; the last says how many passed and failed."""

import difflib
import sys
from concurrent.futures import ThreadPoolExecutor

import compose
import dashboards
import manifests
import promises
import readme
import rules
import schemas
import settings
from tools import BIN, CHART, HELMS, K8S, ROOT, TESTS, call, directives, name_of, objects, template

UPDATE = sys.argv[1:] == ["--update"]
if sys.argv[1:] and not UPDATE:
    sys.exit("usage: charts/tests/run [--update]")

results, notes = [], []


def check(name, problems):
    problems = list(dict.fromkeys(str(problem).strip() for problem in problems))
    results.append(not problems)
    print(f"{'FAIL' if problems else 'ok  '} {name}")
    for problem in problems:
        print("     " + problem.replace("\n", "\n     "))


def same(path, text):
    """A written file against what it should be; with --update it becomes that."""
    old = path.read_text() if path.exists() else ""
    if old == text:
        return
    if UPDATE:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        notes.append(f"wrote {path.relative_to(ROOT)}")
        return
    diff = difflib.unified_diff(old.splitlines(), text.splitlines(), "committed", "now", lineterm="", n=2)
    yield f"{path.relative_to(ROOT)} is not what it should be; charts/tests/run --update writes it\n" \
        + "\n".join(list(diff)[:60])


def invalid(found_in):
    for found in found_in:
        try:
            problem = schemas.wrong(found)
        except LookupError as missing:
            notes.append(f"custom resources are not checked: {missing}")
            continue
        if problem:
            yield f"{name_of(found)}: {problem}"


def value_sets():
    sets = sorted((TESTS / "values").glob("*.yaml"))
    with ThreadPoolExecutor(2) as pool:
        rendered = list(pool.map(lambda case: template(*case), [(helm, path) for path in sets for helm in HELMS]))
        linted = list(pool.map(lambda case: call(BIN / case[0] / "helm", "lint", "--strict", CHART, "--values", case[1]),
                               [(helm, path) for path in sets for helm in HELMS]))
    for at, path in enumerate(sets):
        ours, theirs = rendered[2 * at:2 * at + 2]
        problems = [err for code, _, err in (ours, theirs) if code]
        problems += [out + err for code, out, err in linted[2 * at:2 * at + 2] if code]
        if not problems:
            found = objects(ours[1])
            if found != objects(theirs[1]):
                problems.append("Helm 3 and Helm 4 render different objects")
            problems += invalid(found)
            problems += promises.broken(found)
            problems += same(TESTS / "snapshots" / path.name, ours[1])
        check(f"values {path.stem}: lint, render, schemas, promises, snapshot", problems)
    stale = {path.name for path in (TESTS / "snapshots").glob("*.yaml")} - {path.name for path in sets}
    check("no snapshot without a value set", stale)


def bad_values():
    sets = sorted((TESTS / "bad").glob("*.yaml"))
    with ThreadPoolExecutor(2) as pool:
        refused = list(pool.map(lambda case: template(*case), [(helm, path) for path in sets for helm in HELMS]))
    for at, path in enumerate(sets):
        expected = directives(path)["expect"]
        problems = []
        for helm, (code, _, err) in zip(HELMS, refused[2 * at:2 * at + 2]):
            if code == 0:
                problems.append(f"{helm} takes it")
            elif expected not in err:
                problems.append(f"{helm} does not say {expected!r}: {err}")
        check(f"refused: {path.stem}", problems)


def readme_current():
    try:
        return list(same(readme.README, readme.expected()))
    except ValueError as error:
        return [error]


def alert_rules():
    for name, code, out in rules.promtool():
        check(f"promtool {name}", [out] if code else [])
    check("every alert is tested both ways and has its entry in docs/operations.md", rules.incomplete())
    known, used = rules.exported(), rules.metrics()
    unknown = used - known - rules.documented()
    check("every metric of rules and scalers is known", sorted(unknown))
    if missing := sorted(used - known):
        notes.append(f"in the rules, not yet in the source ({len(missing)} of {len(used)}): {', '.join(missing)}")


def plain_manifests():
    try:
        problems = [problem for path, text in manifests.expected().items() for problem in same(path, text)]
    except RuntimeError as error:
        problems = [error]
    check("k8s/ is what the chart renders", problems)
    for folder in manifests.kustomizations():
        code, out, err = call(BIN / "helm4/kubectl", "kustomize", folder)
        problems = [err] if code else []
        if not code:
            found = objects(out)
            problems += invalid(found)
            problems += promises.broken([one for one in found if one["kind"] != "Namespace"])
        check(f"kustomize {folder.relative_to(ROOT)}: builds, schemas, promises", problems)


def main():
    # first: the chart's snapshots hold them
    drawn = dashboards.expected()
    stale = set((CHART / "dashboards").glob("*.json")) - set(drawn)
    check("dashboards are what charts/dashboards.yaml says",
          [problem for path, text in drawn.items() for problem in same(path, text)] + sorted(stale))
    value_sets()
    bad_values()
    check("values.schema.json refuses unknown fields everywhere", settings.loose())
    check("values.schema.json knows the binary's settings", settings.differences())
    check("README of values is current", readme_current())
    check("dashboards: every query parses and names what is exported, every metric is seen", dashboards.wrong())
    alert_rules()
    plain_manifests()
    code, out, err = call(BIN / "python/bin/hadolint", ROOT / "Dockerfile")
    check("hadolint Dockerfile", [out + err] if code else [])
    check("compose.yaml", compose.wrong())
    for note in dict.fromkeys(notes):
        print(f"note: {note}")
    print(f"{results.count(True)} passed, {results.count(False)} failed")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
