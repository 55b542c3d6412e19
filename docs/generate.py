"""Writes the generated parts of the method pages, so that they cannot drift from the code.

    python docs/generate.py            writes them
    python docs/generate.py --check    only says which pages are out of date; exit code 1 if any is

A page in docs/methods/ is written by hand but for the parts between `<!-- generated: NAME -->` and `<!-- end -->`.
What fills them: the method's docstring, its fields, its documented cost, the lines of its file, and the measurements in
docs/data/posterior.json where that file is there.

`<!-- beside` comments hold the pseudo-code: lines `text :: start of a statement of the method's file`, several
statements with ";;" between, nothing after "::" where the last statement goes on. A statement may be preceded by
`function>` or by `file.py>function>`.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import html
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
PAGES = DOCS / "methods"
DATA = DOCS / "data" / "posterior.json"
PART = re.compile(r"(?P<head><!-- generated: (?P<name>[a-z]+) -->\n).*?(?P<foot><!-- end -->)", re.DOTALL)
BESIDE = re.compile(r"<!-- beside\n(.*?)-->", re.DOTALL)
COSTS = (10, 20, 50, 100)
COMMON = ("coordinates", "times")  # the fields of every method
RANDOM = "; a random one in Python"  # a generator that is left out
FAMILIES = DOCS / "models" / "families.md"
# the columns of its table, and what tests/models/tiny_pipelines.py calls them
COLUMNS = {
    "DDPM": "ddpm",
    "LDM": "ldm",
    "SD 1.5": "sd15",
    "SD 2.1": "sd21",
    "SDXL": "sdxl",
    "SD 3": "sd3",
    "FLUX.1 dev": "flux_dev",
    "FLUX.1 Kontext": "flux_kontext",
    "FLUX.2 klein": "flux2_klein",
    "Qwen-Image": "qwen_image",
    "Qwen-Image-Edit": "qwen_image_edit",
    "Z-Image": "z_image",
    "HiDream": "hidream",
    "Chroma": "chroma",
    "AuraFlow": "aura_flow",
    "PixArt-Sigma": "pixart_sigma",
    "Lumina 2": "lumina2",
    "Sana": "sana",
    "Krea 2": "krea2",
    "Kandinsky 5 image": "kandinsky5_image",
    "Ideogram 4": "ideogram4",
    "Wan 2.1": "wan",
    "Wan 2.2 TI2V": "wan22_ti2v",
    "LTX-Video": "ltx",
    "HunyuanVideo": "hunyuan_video",
    "Kandinsky 5": "kandinsky5",
    "Stable Audio": "stable_audio",
    "ACE-Step": "ace_step",
}

sys.path.insert(0, str(ROOT))

from paintback import methods  # noqa: E402 - the path comes first
from paintback.cli import fields  # noqa: E402
from paintback.methods.base import FAMILIES as FAMILIES_OF_METHODS  # noqa: E402
from paintback.methods.base import Method  # noqa: E402
from paintback.painting.request import (  # noqa: E402
    Asked,
    AudioRequest,
    LayersRequest,
    Option,
    Request,
    SuperresRequest,
    options,
)
from research import gallery  # noqa: E402

REQUESTS: dict[str, type[Asked]] = {
    "inpaint": Request,
    "audio": AudioRequest,
    "superres": SuperresRequest,
    "layers": LayersRequest,
}

# ------------------------------------------------------------------------------------------------------- docstrings


def source(kind: type[Method]) -> Path:
    """The file of a method."""
    return Path(inspect.getfile(kind))


@cache
def paragraphs(path: Path) -> list[str]:
    """A module's docstring, cut at empty lines."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")), clean=True) or ""
    return text.split("\n\n")


def split(kind: type[Method]) -> tuple[str, list[str], list[str], str]:
    """A docstring as its reference, its equations, its remarks, and its last sentence, on the cost.

    The equations are all that stands before the last line that is set off as one, and a sentence that goes on from it.
    """
    _, reference, *rest = paragraphs(source(kind))
    remarks, cost = [], ""
    for paragraph in rest:
        found = re.search(r"\bCost of N\w* intervals", paragraph)
        remarks.append(paragraph[: found.start()].rstrip() if found else paragraph)
        if found:  # the rest of the paragraph is a remark
            cost, _, more = " ".join(paragraph[found.start() :].split()).partition(". ")
            cost = cost.rstrip(".") + "."
            if more:
                remarks.append(f"Of the cost: {more}")
    if not cost:
        raise ValueError(f"the docstring of {source(kind).name} has no sentence 'Cost of N intervals: ...'.")
    equations = []
    while any(formulas(paragraph) for paragraph in remarks):
        paragraph = remarks.pop(0)
        last = 1 + max(formulas(paragraph), default=len(paragraph.splitlines()))
        if any(formulas(other) for other in remarks):
            last = len(paragraph.splitlines())
        lines = paragraph.splitlines()
        equations.append("\n".join(lines[:last]))
        remarks[:0] = ["\n".join(lines[last:])] if lines[last:] else []
    if equations and remarks and remarks[0][:1].islower():
        equations.append(remarks.pop(0))
    return reference, equations, [remark for remark in remarks if remark], cost


def formulas(paragraph: str) -> list[int]:
    """The numbers of the lines that are set off as equations; those of a list's items are not."""
    lines = paragraph.splitlines()
    listed = next((k for k, line in enumerate(lines) if line.startswith("  - ")), len(lines))
    return [k for k, line in enumerate(lines[:listed]) if line.startswith("    ")]


def prose(text: str) -> str:
    """Docstring text as Markdown: lists apart, signs of formulas kept as they are."""
    lines: list[str] = []
    for line in text.splitlines():
        item = re.match(r"\s*- (.*)", line)
        if item:
            if lines and lines[-1] and not lines[-1].startswith(("- ", "    ")):
                lines.append("")
            lines.append(f"- {item[1]}")
        elif lines and lines[-1].startswith(("- ", "    ")) and line.startswith(" "):
            lines.append(f"    {line.strip()}")
        else:
            if lines and lines[-1].startswith(("- ", "    ")):
                lines.append("")
            lines.append(line.strip())
    return "\n".join(escape(line) for line in lines)


def escape(line: str) -> str:
    """A line with what Markdown would read as a sign protected, but for code between backquotes."""
    body = line[2:] if line.startswith("- ") else line
    parts = re.split(r"(`[^`]*`)", body)
    safe = "".join(p if p.startswith("`") else re.sub(r"([*_\[\]#])", r"\\\1", p).replace("<", "&lt;") for p in parts)
    return line[: len(line) - len(body)] + safe


def linked(text: str) -> str:
    """Escaped text with the papers' numbers as links."""
    text = re.sub(r"arXiv:(\d{4}\.\d{5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", text)
    return re.sub(r"OpenReview[: ]([A-Za-z0-9\\_]{10,12})", _openreview, text)


def _openreview(found: re.Match[str]) -> str:
    plain = found[1].replace("\\", "")
    return f"[OpenReview {found[1]}](https://openreview.net/forum?id={plain})"


def summary(function: Callable[..., Any]) -> str:
    """The documented cost: the first line of `evaluations` or `vjps`."""
    owner = function.__qualname__.split(".")[0]
    if owner == "Method":
        return "N" if function.__name__ == "evaluations" else "0"
    return (inspect.getdoc(function) or "").splitlines()[0].rstrip(".")


# ------------------------------------------------------------------------------------------------------------ parts


def facts(kind: type[Method], page: str) -> str:
    """A small table at the head of a page."""
    reference = linked(" ".join(escape(line) for line in split(kind)[0].splitlines()))
    coordinates = next(f for f in dataclasses.fields(kind) if f.name == "coordinates").default
    own = "the model's own"
    if kind.edm_coordinates != "edm":
        own += f"; a variance-exploding model is run in `{kind.edm_coordinates}`"
    rows = {
        "name": f"`{kind.name}`, in `paintback/methods/{source(kind).name}`",
        "gradients through the network": gradients(kind),
        "linear operators": "yes" if kind.takes_operator else "no, masks only",
        "coordinates": f"`{coordinates}`" if coordinates else own,
        "noisy observations": front(page)["noise"],
    }
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    return f"{reference}\n\n| | |\n|---|---|\n{table}\n"


def gradients(kind: type[Method]) -> str:
    """Whether a method takes VJPs."""
    if not kind.needs_vjp:
        return "no" if summary(kind.vjps) == "0" else f"only with an option: {summary(kind.vjps)}"
    return f"yes, {summary(kind.vjps)}"


def equation(kind: type[Method], page: str) -> str:
    """The update rule of the docstring, as it stands there, up to what the page names as `until`."""
    found = rule(kind, page)[0]
    if kind.__mro__[1] is not Method and not found:
        found = split(kind.__mro__[1])[1]
    return "```text\n" + "\n\n".join(found) + "\n```\n"


def rule(kind: type[Method], page: str) -> tuple[list[str], list[str]]:
    """The equations of a docstring, and those of them that are of an option and stand with the choices."""
    found, until = split(kind)[1], front(page).get("until")
    cut = next((k for k, text in enumerate(found) if until and text.startswith(until)), len(found))
    if until and cut == len(found):
        raise ValueError(f"no paragraph of {source(kind).name} begins with {until!r}.")
    return found[:cut], found[cut:]


def choices() -> str:
    """The remarks of every docstring: what the paper leaves open, what is ours."""
    parts = []
    for name, kind in methods.types().items():
        optional = rule(kind, (PAGES / f"{name}.md").read_text(encoding="utf-8"))[1]
        shown = ["```text\n" + "\n\n".join(optional) + "\n```"] if optional else []
        said = "\n\n".join([*shown, *(linked(prose(text)) for text in split(kind)[2])])
        parts.append(f"## {name}\n\n[{escape(kind.title.partition(':')[0])}](../methods/{name}.md).\n\n{said}\n")
    return "\n".join(parts)


def fieldtable(kind: type[Method], page: str) -> str:
    """Fields with defaults, ranges and help."""
    rows = ["| field | default | range | what it is |", "|---|---|---|---|"]
    for entry in fields.describe(kind):
        if entry["name"] in COMMON:
            continue
        default = "none" if entry["default"] is None else f"{entry['default']}".lower()
        rows.append(f"| `{entry['name']}` | `{default}` | {reach(entry)} | {entry['help']} |")
    common = "`coordinates` and `times` are [fields of every method](index.md#fields-of-every-method)."
    return ("\n".join(rows) if len(rows) > 2 else "No fields of its own.") + f"\n\n{common}\n"


def reach(entry: dict[str, Any]) -> str:
    """The range of a field."""
    if entry["choices"]:
        return ", ".join(f"`{choice}`" for choice in entry["choices"])
    low, high = entry["low"], entry["high"]
    if low is None and high is None:
        return {"bool": "`true`, `false`"}.get(entry["type"], "")
    if high is None:
        return f"at least {low:g}"
    return f"at most {high:g}" if low is None else f"{low:g} to {high:g}"


def cost(kind: type[Method], page: str) -> str:
    """The documented cost, and what it comes to."""
    method = kind()
    rows = [
        f"{linked(escape(split(kind)[3]))}\n",
        "| N | " + " | ".join(map(str, COSTS)) + " |",
        "|---" * (len(COSTS) + 1) + "|",
        "| evaluations | " + " | ".join(f"{method.evaluations(n)}" for n in COSTS) + " |",
        "| gradients (VJPs) | " + " | ".join(f"{method.vjps(n)}" for n in COSTS) + " |",
    ]
    return "\n".join(rows) + f"\n\n`pb.methods.get('{kind.name}').evaluations(20)` counts them.\n"


def beside(kind: type[Method], page: str) -> str:
    """Pseudo-code and the statements that implement it, side by side."""
    found = BESIDE.search(page)
    if not found:
        raise ValueError(f"the page of {kind.name} has no `<!-- beside` comment.")
    rows: list[tuple[list[str], list[str], str]] = []
    for line in filter(str.strip, found[1].splitlines()):
        words, colons, wanted = line.partition(" ::")
        if not colons:
            raise ValueError(f"{kind.name}: no ' ::' in the line {line!r}.")
        if not wanted.strip():
            rows[-1][0].append(words.rstrip())
            continue
        statements, place = [], ""
        for part in wanted.split(";;"):
            code, place = statement(kind, part.strip())
            statements.append(code)
        rows.append(([words.rstrip()], statements, place))
    cells, last = [], ""
    for words_, code_, place in rows:
        if place != last:
            cells.append(f'<tr><th></th><th align="left"><code>{place}</code></th></tr>')
            last = place
        left, right = (html.escape("\n".join(x), quote=False) for x in (words_, code_))
        cells.append(f"<tr><td><pre>{left}</pre></td><td><pre>{right}</pre></td></tr>")
    return '<table class="beside">\n' + "\n".join(cells) + "\n</table>\n"


def statement(kind: type[Method], wanted: str) -> tuple[str, str]:
    """The code of a statement, found by its beginning, and the function that it stands in."""
    parts = re.fullmatch(r"(?:(\w+\.py)>)?(?:(\w+)> )?(.*)", wanted)
    assert parts is not None
    file, where, start = parts.groups()
    path = source(kind).parent / file if file else source(kind)
    text = path.read_text(encoding="utf-8")
    found: dict[int, tuple[str, str]] = {}  # by line; of nested functions the innermost comes last and stays
    for function in ast.walk(ast.parse(text)):
        if isinstance(function, ast.FunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.stmt) and node is not function:
                    code = lines_of(text, node)
                    if code.startswith(start):
                        found[node.lineno] = code, function.name
    fitting = list(dict.fromkeys(entry for entry in found.values() if where in (None, entry[1])))
    fitting = [entry for entry in fitting if entry[0] == start] or fitting
    if len(fitting) != 1:
        raise ValueError(f"{path.name} has {len(fitting)} statements that begin with {wanted!r}; say more of it.")
    code, name = fitting[0]
    return code, name if path == source(kind) else f"{path.stem}.{name}"


def lines_of(text: str, node: ast.stmt) -> str:
    """A statement's lines; of a compound one with more than one statement in it the head alone."""
    body = getattr(node, "body", None)
    last = node.end_lineno or node.lineno
    if isinstance(body, list) and (len(body) > 1 or getattr(node, "orelse", None)):
        last = body[0].lineno - 1
    lines = text.splitlines()[node.lineno - 1 : max(last, node.lineno)]
    return textwrap.dedent("\n".join(line for line in lines if not line.strip().startswith("#"))).rstrip()


# ------------------------------------------------------------------------------------------------------ measurements


@cache
def measurements() -> dict[str, Any] | None:
    """What `paintback bench posterior` wrote, or None."""
    return json.loads(DATA.read_text(encoding="utf-8")) if DATA.exists() else None


def command(labels: list[str], rows: list[dict[str, Any]], protocol: dict[str, Any]) -> str:
    """The command that makes some rows."""
    problems = ",".join(dict.fromkeys(row["problem"] for row in rows))
    steps = ",".join(map(str, sorted({row["steps"] for row in rows})))
    more = "" if protocol["schedule"] == "paper" else f" --schedule {protocol['schedule']}"
    if (grid := protocol["grid"].partition(",")[0]) != "uniform":
        more += f" --grid {grid}"
    options = (
        f"--methods {','.join(labels)} --problems {problems} --steps {steps}",
        f"--particles {protocol['particles']} --seeds {len(protocol['seeds'])}{more} -o bench-out",
    )
    return "```sh\npaintback bench posterior " + " \\\n    ".join(options) + "\n```\n"


def measured(kind: type[Method], page: str) -> str:
    """KL on the closed-form problems, from docs/data/posterior.json."""
    data = measurements()
    rows = [row for row in data["rows"] if row["method"] == kind.name] if data else []
    if not rows:
        return (
            "No measurement of this method is kept in the repository yet. This makes one:\n\n"
            f"```sh\npaintback bench posterior --methods {kind.name} -o bench-out\n```\n"
        )
    assert data is not None
    labels = sorted({row["label"] for row in rows}, key=lambda label: (label != kind.name, label))[:1]
    rows = [row for row in rows if row["label"] == labels[0]]
    steps = sorted({row["steps"] for row in rows})
    parts = [
        f"KL of `{labels[0]}` from the [exact posterior](../posterior.md) in nats; in brackets evaluations and, after "
        "a slash, gradients.\n",
        "| problem | " + " | ".join(f"N = {n}" for n in steps) + f" | observed entries @{steps[-1]} |",
        "|---" * (len(steps) + 2) + "|",
    ]
    for problem in dict.fromkeys(row["problem"] for row in rows):
        at = {row["steps"]: row for row in rows if row["problem"] == problem}
        end = at.get(steps[-1])
        cells = [cell(at.get(n)) for n in steps]
        cells.append("" if end is None else number(end["observed"]))
        parts.append(f"| {problem} | " + " | ".join(cells) + " |")
    protocol = data["protocol"]
    return "\n".join(parts) + f"\n\nPaintback {protocol['paintback']}:\n\n" + command(labels, rows, protocol)


def cell(row: dict[str, Any] | None) -> str:
    """KL and its cost."""
    if row is None:
        return ""
    price = f"{row['evaluations']:g}" + (f"/{row['vjps']:g}" if row["vjps"] else "")
    return f"{number(row['kl'])} ({price})"


def number(value: float | None) -> str:
    """Three digits, or one of a small number."""
    if value is None:
        return "none"
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}" if value >= 0.01 else f"{value:.1g}"


# ------------------------------------------------------------------------------------------------------------ pages

PARTS: dict[str, Callable[[type[Method], str], str]] = {
    "facts": facts,
    "equation": equation,
    "beside": beside,
    "fields": fieldtable,
    "cost": cost,
    "measured": measured,
}


def front(page: str) -> dict[str, str]:
    """A page's front matter: `key: value` lines."""
    found = re.match(r"---\n(.*?)\n---\n", page, re.DOTALL)
    lines = found[1].splitlines() if found else []
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def index() -> str:
    """The tables of all methods, family by family."""
    head = "| method | what it does | paper | gradients | operator | noisy observations | cost of N intervals |"
    parts = [f"{len(methods.names())} methods; `paintback methods` lists them, `paintback methods NAME` shows one.\n"]
    for family, (title, line) in FAMILIES_OF_METHODS.items():
        kinds = {name: kind for name, kind in methods.types().items() if kind.family == family}
        rows = [indexed(name, kind) for name, kind in kinds.items()]
        parts.append(f"### {title}\n\n{line}\n\n{head}\n|---|---|---|---|---|---|---|\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def indexed(name: str, kind: type[Method]) -> str:
    """A method's row."""
    page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    said = kind.title.partition(": ")[2]
    price = summary(kind.evaluations)
    more = "" if summary(kind.vjps) == "0" else f"; gradients {summary(kind.vjps)}"
    operator = "yes" if kind.takes_operator else "no"
    cells = (
        f"[`{name}`]({name}.md)", escape(said), linked(escape(kind.paper)), "yes" if kind.needs_vjp else "no",
        operator, front(page)["noise"], escape(price + more),
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def families() -> str:
    """The table of methods and families; `tests/models/test_families.py` runs every cell that says yes."""
    rows = ["| method | evaluations | gradients | " + " | ".join(COLUMNS) + " |"]
    rows.append("|---" * (len(COLUMNS) + 3) + "|")
    for name, kind in methods.types().items():
        said = "no" if name == "aid" else "yes"
        price = f"{escape(summary(kind.evaluations))} | {escape(summary(kind.vjps))}"
        rows.append(f"| [`{name}`](../methods/{name}.md) | {price} | " + " | ".join([said] * len(COLUMNS)) + " |")
    return "\n".join(rows) + "\n"


def features() -> str:
    """The table of families and features; `python -m tests.models.features` writes what it says."""
    found = json.loads((DOCS / "data" / "features.json").read_text(encoding="utf-8"))
    labels = {tiny: label for label, tiny in COLUMNS.items()}
    sentences: list[str] = []
    rows = ["| feature | " + " | ".join(labels[name] for name in found) + " |", "|---" * (len(found) + 1) + "|"]
    for feature in next(iter(found.values())):
        cells = []
        for column in found.values():
            said = column[feature]
            if said != "yes" and said not in sentences:
                sentences.append(said)
            cells.append(said if said == "yes" else f"no [{sentences.index(said) + 1}]")
        rows.append(f"| {feature} | " + " | ".join(cells) + " |")
    notes = [f"{number}. {escape(text)}" for number, text in enumerate(sentences, 1)]
    return "\n".join(rows) + "\n\n" + "\n".join(notes) + "\n"


def optiontable(kind: type[Asked]) -> str:
    """The options of a request at the command line."""
    rows = ["| option | what it does | default |", "|---|---|---|"]
    for one in options(kind):
        if "cli" in one.where and one.group != "file":
            shown = one.metavar or "|".join(one.choices)
            flag = f"`{one.flag}{' ' + shown if shown else ''}`".replace("|", "\\|")
            told = one.default is not None and one.default is not False and one.default not in ({}, (0, 0, 0, 0))
            default = f"`{one.default}`" if told else ""
            rows.append(f"| {flag} | {escape(one.help.rstrip('.'))} | {default} |")
    return "\n".join(rows) + "\n"


def requesttable() -> str:
    """What a request may say: every entry with its values, its default and who takes it."""
    rows = ["| entry | takes | default | where |", "|---|---|---|---|"]
    for one in options(Request):
        if one.group == "record":
            continue
        where = [name for name in ("python", "cli", "manifest", "http") if name in one.where]
        other = f" (Python: `{one.python}`)" if one.python != one.name and "python" in one.where else ""
        told = one.default not in (None, {}, (0, 0, 0, 0))
        default = f"`{json.dumps(one.default)}`" if told else ""
        default += RANDOM if one.python == "generator" else ""
        rows.append(f"| `{one.name}`{other} | {taken(one)} | {default} | {', '.join(where)} |")
    return "\n".join(rows) + "\n"


def taken(one: Option) -> str:
    """The values of an entry, in words."""
    words = {"int": "a whole number", "float": "a number", "flag": "true or false", "text": "a text",
             "sides": "four whole numbers", "fields": "names with values", "files": "paths of pictures"}  # fmt: skip
    said = [words[one.kind]] if one.kind in words else [" or ".join(f"`{choice}`" for choice in one.choices)]
    if one.above is not None:
        said.append(f"above {one.above:g}")
    if one.low is not None:
        said.append(f"from {one.low:g}")
    if one.high is not None:
        said.append("to 2^63 - 1" if one.high > 2**62 else f"to {one.high:g}")
    return " ".join(said) + (", or none" if one.nullable else "")


def numbertable() -> str:
    """The numbers of all requests with their ranges; an entry that several have alike stands once."""
    rows = ["| entry | option | in Python | what is taken | left out |", "|---|---|---|---|---|"]
    for kind, only in (
        (Request, ""),
        (AudioRequest, "audio"),
        (SuperresRequest, "superres"),
        (LayersRequest, "layers"),
    ):
        for one in options(kind):
            if one.kind not in ("int", "float", "sides"):
                continue
            flag = f"`{one.flag}`" if "cli" in one.where else ""
            python = f"`{one.python}`" if "python" in one.where else ""
            default = f"{one.default}".strip("()") if one.default is not None else "none"
            default += RANDOM if one.python == "generator" else ""
            row = f"| {flag} | {python} | {interval(one, kind)} | {default} |"
            if not any(row in other and f"`{one.name}`" in other for other in rows):
                rows.append(f"| `{one.name}`{f' ({only})' if only else ''} {row}")
    return "\n".join(rows) + "\n"


def interval(one: Option, kind: type[Asked]) -> str:
    """The kind and the range of an entry that is a number, or four of them."""
    what, low, high = "whole" if one.kind == "int" else "any", one.low, one.high
    if one.kind == "sides":
        side = kind.model_json_schema()["properties"][one.name]["prefixItems"][0]
        what, low, high = "four, whole", side["minimum"], side["maximum"]
    parts = [f"above {one.above:g}" if one.above is not None else f"from {low:g}"]
    parts += [] if high is None else [f"to {high:,}"]
    return f"{what}, {' '.join(parts)}{', or none' if one.nullable else ''}"


def render(path: Path) -> str:
    """What a page should read."""
    text = path.read_text(encoding="utf-8")
    kind = methods.types().get(path.stem)

    def fill(found: re.Match[str]) -> str:
        name = found["name"]
        if name == "index":
            body = index()
        elif name == "families":
            body = families()
        elif name == "gallery":
            body = gallery.page()
        elif name == "byeye":
            body = gallery.by_eye_page()
        elif name == "choices":
            body = choices()
        elif name == "requests":
            body = requesttable()
        elif name == "features":
            body = features()
        elif name in REQUESTS:
            body = optiontable(REQUESTS[name])
        elif name == "numbers":
            body = numbertable()
        elif kind is None or name not in PARTS:
            raise ValueError(f"{path.name} has a part {name!r} that nothing generates.")
        else:
            body = PARTS[name](kind, text)
        return f"{found['head']}\n{body}\n{found['foot']}"

    return PART.sub(fill, text)


def pages() -> list[Path]:
    """The pages with generated parts."""
    own = (PAGES / f"{name}.md" for name in methods.names())
    others = (PAGES / "index.md", DOCS / "results" / "choices.md", FAMILIES, DOCS / "cli.md", DOCS / "accepted.md")
    return [*own, *others, DOCS / "gallery.md", DOCS / "by-eye.md"]


def main() -> int:
    """Writes the pages, or checks them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a page is out of date")
    check = parser.parse_args().check
    stale = []
    for path in pages():
        wanted = render(path)
        if wanted != path.read_text(encoding="utf-8"):
            stale.append(path.name)
            if not check:
                path.write_text(wanted, encoding="utf-8")
    if stale:
        print(("out of date: " if check else "wrote ") + ", ".join(stale), file=sys.stderr)
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
