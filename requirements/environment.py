"""`environment.yml` from the pins: `python -m requirements.environment` writes it."""

from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "requirements" / "constraints.txt"
ENVIRONMENT = ROOT / "environment.yml"
PYTHON = "3.11"
HEADER = "# Written by `python -m requirements.environment` from requirements/constraints.txt.\n"


def pins() -> list[str]:
    """The `name==version` lines of the constraints."""
    lines = (line.strip() for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def render() -> str:
    """The text of `environment.yml`: conda brings Python and pip, pip brings the exact pins."""
    environment = {
        "name": "mechanism",
        "channels": ["conda-forge"],
        "dependencies": [f"python={PYTHON}", "pip", {"pip": [*pins(), "-e .[book,test]"]}],
    }
    return HEADER + yaml.safe_dump(environment, sort_keys=False)


if __name__ == "__main__":
    ENVIRONMENT.write_text(render(), encoding="utf-8")
