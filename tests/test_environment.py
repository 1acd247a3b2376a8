"""One truth about versions: pyproject.toml, the pins, environment.yml and the workflows agree."""

import re
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from requirements.environment import ENVIRONMENT, PYTHON, ROOT, pins, render

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINNED_EXTRAS = ("book", "test", "corpus")
DECLARED = PROJECT["dependencies"] + [line for e in PINNED_EXTRAS for line in PROJECT["optional-dependencies"][e]]
PINS = {canonicalize_name(r.name): r for r in map(Requirement, pins())}
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def pinned(requirement: Requirement) -> str:
    (specifier,) = requirement.specifier
    return specifier.version


def test_committed_environment_is_the_generated_one():
    assert ENVIRONMENT.read_text(encoding="utf-8") == render(), "run: python -m requirements.environment"


def test_environment_is_what_conda_reads():
    environment = yaml.safe_load(render())
    python, pip, section = environment["dependencies"]
    assert (environment["channels"], python, pip) == (["conda-forge"], f"python={PYTHON}", "pip")
    assert section["pip"] == [*pins(), "-e .[book,test]"]


@pytest.mark.parametrize("line", pins())
def test_pin_is_exact(line: str):
    requirement = Requirement(line)
    (specifier,) = requirement.specifier
    assert specifier.operator == "=="
    assert not specifier.version.endswith("*")
    assert "+" not in specifier.version, "a local version cannot be installed from the public index"


def test_pins_name_each_package_once_in_order():
    names = [Requirement(line).name.lower() for line in pins()]
    assert names == sorted(set(names))


@pytest.mark.parametrize("line", DECLARED)
def test_declared_dependency_has_a_pin_it_allows(line: str):
    requirement = Requirement(line)
    pin = PINS[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(pinned(pin)), f"{pin} is outside {requirement}"


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_run_the_environments_python(workflow):
    versions = re.findall(r"python-version: *\"?([\d.]+)", workflow.read_text(encoding="utf-8"))
    assert versions
    assert set(versions) == {PYTHON}


def test_oldest_supported_python_is_the_environments():
    assert PROJECT["requires-python"] == f">={PYTHON}"


def test_the_contracts_run_at_the_floor():
    (floor,) = [run for path in WORKFLOWS for run in re.findall(r"run: (.*transformers==.*)", path.read_text("utf-8"))]
    lowest = {
        r.name: s.version for r in map(Requirement, PROJECT["dependencies"]) for s in r.specifier if s.operator == ">="
    }
    for name in ("torch", "transformers"):
        (tried,) = re.findall(rf'"{name}==([\d.]+)"', floor)
        assert tried.startswith(lowest[name] + "."), f"{name} is tried at {tried}, the bound is {lowest[name]}"
