"""Pages, versions, the container, the workflow and the notebook name what is there."""

import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml

import gazepose

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LOCAL_LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_link_of_a_page_leads_to_a_file(page):
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)
    assert [link for link in LOCAL_LINK.findall(text) if not (page.parent / link).exists()] == []


def test_the_version_is_the_same_everywhere():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]
    newest = re.search(r"^## ([\d.]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest and gazepose.__version__ == cited == newest[1]


def test_each_page_has_its_place_in_the_site():
    listed = (ROOT / "mkdocs.yml").read_text()
    assert [page.name for page in PAGES[2:] if f" {page.name}\n" not in listed] == []


def test_the_site_asks_no_other_server_for_anything():
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    assert settings["theme"]["font"] is False and "analytics" not in settings["extra"]
    assert not {"extra_javascript", "extra_css"} & set(settings)


def test_the_workflow_runs_what_a_reader_runs():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert commands == ["CPU=1 bash .ci/run"] and (ROOT / ".ci" / "run").exists()


def test_what_the_container_copies_is_there_and_reaches_the_builder():
    copied = [name for line in re.findall(r"^COPY (.*) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
              for name in line.split()]
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    links = [path.resolve() for path in (ROOT / "gazepose").rglob("*") if path.is_symlink()]
    assert sorted(copied) == sorted(kept) and all((ROOT / name).exists() for name in copied)
    assert links and {str(path.relative_to(ROOT)) for path in links} <= set(copied)


def test_the_container_installs_what_the_package_is_built_from():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {project["project"]["readme"], *project["project"]["license-files"],
              project["tool"]["setuptools"]["dynamic"]["dependencies"]["file"][0]}
    assert needed <= set((ROOT / "Dockerfile").read_text().split())


def test_the_notebook_is_kept_without_outputs():
    cells = json.loads((ROOT / "docs" / "first_steps.ipynb").read_text())["cells"]
    assert [cell["id"] for cell in cells if cell.get("outputs") or cell.get("execution_count")] == []
