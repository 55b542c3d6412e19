"""The documentation: a page for every method, generated parts up to date, examples that run, no machine's paths."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import numpy as np
import pytest
import yaml
from PIL import Image

import paintback as pb
from paintback import methods
from paintback.cli.main import paintback as paintback_command
from paintback.methods.base import FAMILIES

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
RUN = re.compile(
    r"<!-- run -->\n```python\n(?P<code>.*?)\n```(?:\n\n<!-- output -->\n```text\n(?P<output>.*?)\n```)?", re.DOTALL
)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
SECTIONS = ("In words", "The equation", "Beside the code", "When to use it", "Cost", "Fields", "Limits", "Measured")
LONGEST = 800  # words of a method's page, all that is seen: prose, code and tables


def examples() -> Iterator[object]:
    for page in PAGES:
        if page.stem == "tutorial" or (page.parent.name == "howto" and not page.stem.startswith("write-")):
            continue  # they need pictures and a pipeline: tests/test_howto.py types them
        for number, found in enumerate(RUN.finditer(page.read_text(encoding="utf-8")), 1):
            name = f"{page.relative_to(DOCS)}-{number}"
            yield pytest.param(found["code"], found["output"], id=name)


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the examples find photo.png and mask.png."""
    rows = np.linspace(0, 255, 40)[:, None, None] * np.ones((1, 48, 3))
    Image.fromarray(rows.astype(np.uint8)).save(tmp_path / "photo.png")
    hole = np.zeros((40, 48), np.uint8)
    hole[16:22, 20:27] = 255
    Image.fromarray(hole).save(tmp_path / "mask.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def navigation(entry: object) -> Iterator[str]:
    """All pages of mkdocs' nav."""
    if isinstance(entry, str):
        yield entry
    elif isinstance(entry, dict):
        for value in entry.values():
            yield from navigation(value)
    elif isinstance(entry, list):
        for value in entry:
            yield from navigation(value)


def test_every_method_has_a_page_in_the_navigation() -> None:
    listed = set(navigation(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    wanted = {f"methods/{name}.md" for name in methods.names()}
    assert wanted <= listed
    assert {page for page in listed if page.startswith("methods/")} == wanted | {"methods/index.md", "methods/equal.md"}
    assert {path.stem for path in (DOCS / "methods").glob("*.md")} == {*methods.names(), "index", "equal"}


def test_the_front_lists_every_method_in_its_family() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    kinds = methods.types()
    wanted = {title.lower(): [name for name, kind in kinds.items() if kind.family == family]
              for family, (title, _) in FAMILIES.items()}  # fmt: skip
    (tab,) = (entry["Methods"] for entry in nav if "Methods" in entry)
    offered = {name.lower(): [Path(page).stem for page in navigation(pages)]
               for entry in tab if isinstance(entry, dict) for name, pages in entry.items()}  # fmt: skip
    assert offered == wanted
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|`]+) \| ([^|]*`[^|]*) \|$", readme, re.MULTILINE)
    listed = {family.lower(): re.findall(r"`(\w+)`", names) for family, names in rows if family.lower() in wanted}
    assert listed == wanted
    assert sorted(name for names in listed.values() for name in names) == methods.names()
    front = readme + (DOCS / "index.md").read_text(encoding="utf-8")
    assert set(re.findall(r"(\d+) methods", front)) == {str(len(methods.names()))}


def test_the_fronts_say_the_real_default() -> None:
    """What the captions of the sheet say, held against the plans that are made for its pictures."""
    from paintback.painting.layout import THIN
    from paintback.painting.quality import THIN_DRAWS

    inpainter = pb.Inpainter.from_pretrained("photo")
    examples = ROOT / "paintback" / "examples"
    for name in ("scratches", "text", "object"):
        plan = inpainter.plan(str(examples / f"{name}.jpg"), str(examples / f"{name}-mask.png"))
        thin = [(stage.steps, stage.repeats) for stage in plan.stages if stage.thin]
        wide = [stage.steps for stage in plan.stages if not stage.thin]
        assert wide[0] == 12 and set(thin) == (set() if name == "object" else {(9, THIN_DRAWS)})
    assert (THIN, THIN_DRAWS) == (12, 4)
    sampler = inpainter.model.sampler
    assert (sampler.method, sampler.fields["delayed"], sampler.thin) == ("ding", True, "ddnm:eta=1.0")
    said = (
        "the model `photo` at quality `good`",
        "starts from a smooth fill",
        "delayed DING in twelve steps",
        "at most 12 pixels across",
        "nine steps",
        "mean of four",
    )
    for front in (ROOT / "README.md", DOCS / "index.md"):
        text = front.read_text(encoding="utf-8")
        assert all(words in text for words in said) and "planned" not in text


def test_the_gallery_is_whole_and_light(generator: ModuleType) -> None:
    gallery = generator.gallery
    figures = DOCS / "figures" / "gallery"
    wanted = {f"{entry.name}.jpg" for entry in gallery.ENTRIES} | {f"by-eye-{one.name}.jpg" for one in gallery.BY_EYE}
    assert {path.name for path in figures.iterdir()} == wanted
    assert sum(path.stat().st_size for path in figures.iterdir()) <= 400_000
    assert len(gallery.ENTRIES) == 24 and sum(entry.fails for entry in gallery.ENTRIES) >= 4
    assert all(entry.photo in gallery.CREDITS for entry in (*gallery.ENTRIES, *gallery.BY_EYE))
    for name in gallery.compared():
        method = methods.get(name)
        steps = gallery.budgeted(name)
        assert method.evaluations(steps) + method.vjps(steps) <= gallery.BUDGET or steps == 1


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every line of a shell block of the front and the site that calls `paintback`, and the page that it is on."""
    for page in (ROOT / "README.md", *PAGES):
        for block in re.findall(r"```sh\n(.*?)\n```", page.read_text(encoding="utf-8"), re.DOTALL):
            for line in block.replace("\\\n", "").splitlines():
                words = [word for word in shlex.split(line, comments=True) if word != "&"]
                if words[:1] == ["paintback"] and "..." not in line:
                    yield f"{page.name}: {line}", words[1:]


def test_every_command_of_the_pages_is_understood() -> None:
    """No option or command that is not there; whether files are there is not asked."""
    seen, wrong = 0, []
    for line, words in commands():
        command: click.Command = paintback_command
        context = click.Context(command)
        seen += 1
        try:
            while isinstance(command, click.Group):
                name, *words = words
                found = command.get_command(context, name)
                assert found is not None, line
                command, context = found, click.Context(found, parent=context, info_name=name)
            command.make_context(context.info_name, words, parent=context.parent)
        except click.UsageError as error:
            if "does not exist" not in error.format_message():
                wrong.append(f"{line}: {error.format_message()}")
    assert seen > 150
    assert wrong == []


TASKS = {  # what a newcomer comes for: the page, and what its way there may be called
    "restore": "howto/restore.md",
    "remove": "howto/remove.md",
    "batch": "howto/folder.md",
    "SDXL from Python": "howto/large-models.md",
    "add a method": "howto/write-method.md",
}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("front", ["README.md", "docs/index.md"])
def test_a_newcomers_tasks_are_two_clicks_away(task: str, front: str) -> None:
    def links(page: Path) -> set[Path]:
        found = re.findall(r"\]\(([^)#:]+\.md)(?:#[\w-]*)?\)", page.read_text(encoding="utf-8"))
        return {(page.parent / link).resolve() for link in found}

    here = ROOT / front
    near = links(here)
    reached = near | {target for page in near if page.exists() for target in links(page)}
    assert DOCS / TASKS[task] in reached
    assert all(page.exists() for page in near if not page.name.endswith("-card.md"))


@pytest.mark.parametrize("name", methods.names())
def test_page_is_complete(name: str) -> None:
    text = (DOCS / "methods" / f"{name}.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.*)", text, re.MULTILINE)
    assert headings == list(SECTIONS)
    assert re.match(r"---\nnoise: .+\n(?:until: .+\n)?---\n# ", text)
    assert words(text) <= LONGEST


def test_the_page_says_which_options_a_batch_lacks_and_all_say_what_a_mask_may_be() -> None:
    from paintback.cli.batch import batch
    from paintback.cli.inpaint import inpaint

    one, many = ({flag for param in command.params for flag in param.opts} for command in (inpaint, batch))
    said = re.search(r"the options of `inpaint` but for (.*?), and these:", (DOCS / "cli.md").read_text("utf-8"))
    assert said is not None and set(re.findall(r"`(--[a-z0-9-]+)`", said[1])) == {
        flag for flag in one - many if flag[0] == "-"
    }
    masks = {param.name: getattr(param, "help", None) for param in batch.params}["masks"]
    assert all("auto:" in str(text) for text in (masks, inpaint.help))


def words(page: str) -> int:
    """The words that a reader sees: without front matter, comments, tags and addresses, with code and tables."""
    for hidden in (r"\A---\n.*?\n---\n", r"<!--.*?-->", r"</?(?:table|t[rdh]|pre|code)\b[^>]*>", r"\]\([^)]*\)"):
        page = re.sub(hidden, " ", page, flags=re.DOTALL)
    return sum(bool(re.search(r"\w", word)) for word in page.split())


def test_words_are_counted_as_they_are_seen() -> None:
    assert words("---\nnoise: no\n---\n# One\n<!-- no\nno -->two [three](no.md)\n| 4 | <pre>five = 6</pre> |") == 6


@pytest.mark.parametrize("name", [*methods.names(), "index"])
def test_generated_parts_are_up_to_date(name: str, generator: ModuleType) -> None:
    path = DOCS / "methods" / f"{name}.md"
    assert generator.render(path) == path.read_text(encoding="utf-8"), "run `python docs/generate.py`"


def test_generated_parts_of_all_other_pages_are_up_to_date(generator: ModuleType) -> None:
    others = [path for path in generator.pages() if path.parent != DOCS / "methods"]
    assert {path.name for path in others} >= {"families.md", "cli.md", "accepted.md"}
    for path in others:
        assert generator.render(path) == path.read_text(encoding="utf-8"), f"{path}: run `python docs/generate.py`"


def test_generator_finds_statements(generator: ModuleType) -> None:
    ding = methods.types()["ding"]
    assert generator.statement(ding, "mu =")[0].startswith("mu = s.alpha * at_t.x0")
    with pytest.raises(ValueError, match="0 statements"):
        generator.statement(ding, "no_such_name =")
    with pytest.raises(ValueError, match="2 statements"):
        generator.statement(ding, "return")


def test_measurements_become_a_table(generator: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"label": "ding", "method": "ding", "problem": "A", "steps": 10, "kl": 0.2304, "kl_spread": None}
    cost = {"observed": 0.0123, "evaluations": 19.0, "vjps": 0.0}
    other = {**row, "label": "ding:eta=sqrt", "steps": 20, "kl": 0.0042, "kl_spread": 0.001}
    protocol = {"particles": 4000, "seeds": [0, 1], "paintback": "0.1.0", "schedule": "vp"}
    protocol["grid"] = "log_snr, N intervals, the last time 0"
    data = {"protocol": protocol, "rows": [{**row, **cost}, {**other, **cost}]}
    monkeypatch.setattr(generator, "measurements", lambda: data)
    text = generator.measured(methods.types()["ding"], "")
    assert "| A | 0.23 (19) | 0.0123 |" in text
    assert "ding:eta=sqrt" not in text  # one table a page: the rest is on the page of all measurements
    assert "--methods ding --problems A --steps 10 " in text
    assert "--particles 4000 --seeds 2 --schedule vp --grid log_snr" in text
    assert "bench posterior --methods ddnm" in generator.measured(methods.types()["ddnm"], "")


@pytest.mark.parametrize(("code", "output"), list(examples()))
def test_example_runs(code: str, output: str | None, folder: Path) -> None:
    """Words as printed; numbers to 2 %, and 0.03 for what hangs on the last bits of other machines."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "example", "exec", dont_inherit=True), {"__name__": "example"})
    if output is None:
        return
    said = printed.getvalue().strip()
    assert NUMBER.sub("#", said) == NUMBER.sub("#", output)
    for here, there in zip(NUMBER.findall(said), NUMBER.findall(output), strict=True):
        assert float(here) == pytest.approx(float(there), rel=0.02, abs=0.03 if "." in there else 0)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "mkdocs.yml"], ids=lambda page: str(page.relative_to(ROOT)))
def test_no_page_names_a_machine(page: Path) -> None:
    found = re.findall(r"(?<![\w.])/(?:work|tmp|root|home|Users|mnt|opt)/\S*", page.read_text(encoding="utf-8"))
    assert not found
