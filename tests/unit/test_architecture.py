"""The documents say what the code does: pictures, settings, commands and files that they name.

With REWRITE_DIAGRAMS=1 in the environment the pictures in ARCHITECTURE.md are drawn anew instead of compared.
"""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

import pytest

from ha.diagram import arrows, mermaid
from ha.ownership import TABLE, Phase
from jobserver.diagrams import contexts, jobs
from jobserver.settings.loading import known_keys

ROOT = Path(__file__).parent.parent.parent
ARCHITECTURE = ROOT / "ARCHITECTURE.md"
DOCUMENTS = sorted(path.name for path in ROOT.glob("*.md"))
PICTURES = {"ownership": mermaid, "jobs": jobs, "contexts": contexts}
REWRITE = os.environ.get("REWRITE_DIAGRAMS") == "1"


def document(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PICTURES)
def test_the_pictures_show_the_tables(name: str) -> None:
    text = document("ARCHITECTURE.md")
    begin, end = f"<!-- drawn: {name} -->\n", "<!-- end -->"
    assert begin in text
    before, _, rest = text.partition(begin)
    old, _, after = rest.partition(end)
    drawn = f"```mermaid\n{PICTURES[name]()}```\n"
    if REWRITE:
        ARCHITECTURE.write_text(before + begin + drawn + end + after, encoding="utf-8")
        return
    assert old == drawn, "run the tests once with REWRITE_DIAGRAMS=1"


def test_every_rule_of_the_ownership_machine_is_an_arrow() -> None:
    drawn = {(arrow.source, arrow.label.partition(" / ")[0]) for arrow in arrows()}
    assert drawn == {(phase.value, event.__name__) for phase, event in TABLE}


def test_the_ownership_picture_has_every_phase() -> None:
    picture = mermaid()
    for phase in Phase:
        assert re.search(rf"^ *{phase}$|--> {phase}$", picture, re.MULTILINE), phase


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_file_that_a_document_links_to_is_there(name: str) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document(name))
    missing = [target for target in targets if "://" not in target and not (ROOT / target).exists()]
    assert missing == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_heading_that_a_document_links_to_is_there(name: str) -> None:
    for target, anchor in re.findall(r"\]\(([^)#]*)#([^)]+)\)", document(name)):
        assert anchor in anchors(document(target or name)), f"{target or name}#{anchor}"


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_module_path_that_a_document_names_is_there(name: str) -> None:
    packages = r"(?:ha|checkpoint|jobserver|sparkjobserver|tests|examples|benchmarks|config|scripts)"
    paths = set(re.findall(rf"`({packages}/[\w/.]*\w/?)`", document(name)))
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


def test_every_module_has_its_place_in_the_architecture() -> None:
    modules = document("ARCHITECTURE.md").partition("## 10. Modules")[2]
    files = [
        path for package in ("ha", "checkpoint", "jobserver", "sparkjobserver") for path in sources(package)
    ]
    assert [str(path) for path in files if f"{path.name}`" not in modules] == []


def sources(package: str) -> list[Path]:
    found = [path.relative_to(ROOT) for path in (ROOT / package).rglob("*.py")]
    return sorted(path for path in found if path.name != "__init__.py" and "migrations" not in path.parts)


def test_every_setting_is_explained_to_operators() -> None:
    explained = document("OPERATIONS.md")
    keys = [key for key in known_keys() if "." in key]
    assert [key for key in keys if f"`{key}`" not in explained] == []


def test_every_make_target_is_told_and_every_told_one_exists() -> None:
    targets = set(re.search(r"^\.PHONY: (.+)$", document("Makefile"), re.MULTILINE)[1].split())
    assert set(re.findall(r"`make (\w+)`", document("CONTRIBUTING.md"))) == targets


@pytest.mark.parametrize("name", DOCUMENTS)
def test_python_in_the_documents_parses(name: str) -> None:
    for block in re.findall(r"^```python\n(.*?)^```$", document(name), re.MULTILINE | re.DOTALL):
        ast.parse(block)
