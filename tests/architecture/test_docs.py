"""README and docs say what is so: their commands are run by something, their links lead somewhere, their words are explained."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from fraud_testing import pages

ROOT = pages.ROOT
ELSEWHERE = Path(__file__).with_name("commands-elsewhere.txt")
# The test that runs what a target runs. `.ci/run` is `make test`, which runs lint and the fast tests too.
TARGETS = {
    "accept": "tests/chaos/test_chaos.py",
    "card": "ray/tests/integration/test_evaluate.py",
    "demo": "tests/e2e/test_demo.py",
    "down": "tests/e2e/test_demo.py",
    "golden-update": "tests/golden/test_golden.py",
    "help": "tests/architecture/test_docs.py",
    "lint": ".ci/run",
    "sizing": "contracts/tests/unit/test_sizing.py",
    "test": ".ci/run",
    "test-broker": "serving/tests/broker",
    "test-chaos": "tests/chaos/test_chaos.py",
    "test-fast": "tests/run",
}


def test_every_block_of_commands_has_a_runner() -> None:
    """A fenced block of shell commands names who runs it, and that test is there."""
    assert {block.page for block in pages.blocks() if block.runner not in pages.RUNNERS} == set()
    assert [path for path in pages.RUNNERS.values() if not (ROOT / path).exists()] == []


def test_no_command_hides_in_a_block_without_language() -> None:
    """A block that isn't marked as shell holds no command, which nobody would run."""
    hidden = []
    for path in pages.pages():
        for language, text in re.findall(r"^```(\S*)[^\n]*\n(.*?)^```$", path.read_text(), re.M | re.S):
            if language != "sh" and re.search(
                r"^\$? ?(make|kubectl|helm|python\S*|curl|java|PYTHON\w+=)\b", text, re.M
            ):
                hidden.append(f"{path.name}: {text[:60]}")
    assert hidden == []


def test_what_runs_on_a_cluster_is_run() -> None:
    """The pages whose blocks a cluster runs are those that its test goes through."""
    assert {block.page for block in pages.blocks("cluster")} == set(pages.ON_A_CLUSTER)


@pytest.mark.parametrize("runner", ["backups", "cluster", "demo", "doors", "here"])
def test_a_runner_runs_the_blocks_themselves(runner: str) -> None:
    """A test takes the commands from the pages, so that a changed page is what is run."""
    assert f'pages.blocks("{runner}"' in (ROOT / pages.RUNNERS[runner]).read_text()


def test_a_make_command_is_a_target_that_a_test_runs() -> None:
    """What a page says after make is a target of the Makefile, and a test runs what it runs."""
    commands = [command for block in pages.blocks("make") for command in block.commands]
    assert [command for command in commands if not re.fullmatch(r"make [a-z-]+( [A-Z]+=\S+)*", command)] == []
    makefile = (ROOT / "Makefile").read_text()
    for command in commands:
        target = command.split()[1]
        assert re.search(rf"^{target}:", makefile, re.M), target
        assert (ROOT / TARGETS[target]).exists(), target


def test_make_help_lists_the_targets_of_the_pages() -> None:
    """`make help` names each target that a page names."""
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [target for target in TARGETS if not re.search(rf"^  {target} ", shown, re.M)] == []


def test_what_nothing_here_runs_is_listed_and_little() -> None:
    """At most twelve commands need Docker, a cloud account or an administrator; the list names them, and no others."""
    listed = ELSEWHERE.read_text().splitlines()
    assert len(listed) <= 12
    assert {c for block in pages.blocks("elsewhere") for c in block.commands} == set(listed)


def test_every_module_that_a_page_names_is_there() -> None:
    """`python -m` in a page, also within a sentence, names a module of the tree."""
    text = "\n".join(path.read_text() for path in pages.pages() if path.name != "CHANGELOG.md")
    named = {name.replace(".", "/") for name in re.findall(r"python\S* -m (fraud_[\w.]*\w)", text)}
    missing = [
        name
        for name in named
        if not [*ROOT.glob(f"*/src/{name}.py"), *ROOT.glob(f"*/src/{name}/__main__.py")]
    ]
    assert missing == []


@pytest.mark.parametrize("page", pages.pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """A link in a page names a file, and a heading of it where it names one."""
    broken = []
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        name, _, heading = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        headings = re.findall(r"^#+ (.*)$", path.read_text(), re.M) if heading and path.exists() else []
        anchors = {re.sub(r"[^a-z0-9 _-]", "", h.lower()).replace(" ", "-") for h in headings}
        if not path.exists() or (heading and heading not in anchors):
            broken.append(target)
    assert broken == []


def _glossary() -> list[str]:
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \|$", (ROOT / "docs/glossary.md").read_text(), re.M)
    return [term.strip() for term in rows if term.strip() not in ("term", "---")]


def test_the_glossary_is_in_order() -> None:
    """Terms stand in the order of the alphabet, each once."""
    terms = _glossary()
    assert terms == sorted(set(terms))
    assert terms


def test_each_term_of_the_glossary_is_used() -> None:
    """A term stands in some other page, else it needs no explanation."""
    others = "\n".join(
        path.read_text().lower() for path in pages.pages() if path.name not in ("glossary.md", "CHANGELOG.md")
    )
    assert [term for term in _glossary() if not re.search(rf"\b{term}", others)] == []
