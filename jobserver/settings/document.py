"""The commented default settings file and the JSON schema, both made from the model, so that they cannot drift from it.

`python -m jobserver.settings.document DIRECTORY` writes both; a test compares the files in `config/` with the model.
"""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

import yaml

from jobserver.settings.loading import defaults
from jobserver.settings.model import Section, Settings

WIDTH = 110
HEAD = """\
# Settings of a server. Every key is shown with its default; leave out what you do not change.
# Durations carry a unit (300ms, 4s, 2m, 1h, 3d), sizes too (512KiB, 30MiB, 1GiB). Unknown keys are refused.
# `jobserver config check FILE` says what is wrong with a file. Relative paths start at the server's working directory.
"""


def default_file() -> str:
    """The text of `config/jobserver.yaml`."""
    values = defaults().model_dump(mode="json")
    parts = [HEAD]
    for name in Settings.model_fields:
        section = getattr(defaults(), name)
        parts.append(_section_text(name, section, values[name]))
    return "\n".join(parts)


def _section_text(name: str, section: Section, values: dict[str, Any]) -> str:
    lines = [f"# {section.__doc__}", f"{name}:"]
    for key, field in type(section).model_fields.items():
        lines += _comment(field.description or "")
        lines += textwrap.indent(yaml.safe_dump({key: values[key]}, sort_keys=False), "  ").splitlines()
    return "\n".join(lines) + "\n"


def _comment(text: str) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), WIDTH, initial_indent="  # ", subsequent_indent="  # ")


def schema() -> str:
    """The text of `config/schema.json`."""
    return json.dumps(Settings.model_json_schema(), indent=2, sort_keys=True) + "\n"


def write(directory: Path) -> None:
    """Writes both files."""
    directory.joinpath("jobserver.yaml").write_text(default_file(), encoding="utf-8")
    directory.joinpath("schema.json").write_text(schema(), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
