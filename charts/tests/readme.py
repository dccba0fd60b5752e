"""The table of values in the chart's README, out of the `# --` comments of values.yaml."""

import json
import re

import yaml

from tools import CHART

README = CHART / "README.md"
BEGIN, END = "<!-- values: written by charts/tests/run --update -->", "<!-- end of values -->"


def documented():
    """(path, default, description) of each documented value, in the file's order; raises ValueError for others."""
    text = (CHART / "values.yaml").read_text()
    values = yaml.safe_load(text)
    rows, stack, comment = [], [], []
    covered = -1
    for number, line in enumerate(text.splitlines(), 1):
        indent = len(line) - len(line.lstrip())
        stripped = line.strip()
        if covered >= 0 and stripped and indent > covered:
            continue  # part of a value that is described as a whole
        if stripped.startswith("# -- "):
            comment = [stripped[5:]]
        elif stripped.startswith("#") and comment:
            comment.append(stripped[1:].strip())
        elif match := re.match(r"([A-Za-z0-9]+):( |$)", stripped):
            while stack and stack[-1][0] >= indent:
                stack.pop()
            stack.append((indent, match[1]))
            path = [name for _, name in stack]
            value = values
            for name in path:
                value = value[name]
            covered = -1
            if comment:
                rows.append((".".join(path), value, " ".join(comment)))
                covered = indent
            elif not isinstance(value, dict):
                raise ValueError(f"values.yaml:{number}: {'.'.join(path)} has no `# --` comment")
            comment = []
        else:
            comment = []
    return rows


def expected():
    lines = ["| value | default | what it is |", "|---|---|---|"]
    for path, value, description in documented():
        default = json.dumps(value, ensure_ascii=False)
        if len(default) > 60:
            default = "see values.yaml"
        else:
            default = f"`{default}`".replace("|", "\\|")
        lines.append(f"| `{path}` | {default} | {description.replace('|', chr(92) + '|')} |")
    head, rest = README.read_text().split(BEGIN)
    return head + BEGIN + "\n" + "\n".join(lines) + "\n" + END + rest.split(END)[1]
