"""Write what the documentation takes from the code, or check that it is in step (`--check`).

- the settings tables in each connector's README, between `settings:start` and `settings:end`
- each connector's `meltano-hub.yml`, in the form of a definition on Meltano Hub
- `docs/types.md`
- the table of what was written and read back where, in `docs/formats.md`, from the cells of its test

`make docs` rewrites them; the tests check them.
"""

from __future__ import annotations

import argparse
import copy
import difflib
import importlib
import json
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from singer_sdk import Tap, Target

ROOT = Path(__file__).resolve().parent.parent
START, END = "<!-- settings:start -->", "<!-- settings:end -->"
MATRIX_START, MATRIX_END = "<!-- matrix:start -->", "<!-- matrix:end -->"
REPOSITORY_NOTE = (
    "# Meltano Hub's form, written by `make docs` from the connector's own description.\n"
    "# The Hub also asks for `repo` and a logo, which are given when the connector is published.\n"
)


@dataclass(frozen=True)
class Connector:
    """A connector as its folder describes it.

    Attributes:
        folder: `taps/tap-x` or `targets/target-x`.
        name: its executable.
        distribution: its pip package.
        description: one line.
        keywords: for search.
        plugin: the class behind the executable.
    """

    folder: Path
    name: str
    distribution: str
    description: str
    keywords: list[str]
    plugin: Any

    @property
    def schema(self) -> dict[str, Any]:
        """All settings: the connector's, the library's and singer-sdk's."""
        schema = copy.deepcopy(self.plugin.config_jsonschema)
        self.plugin.append_builtin_config(schema)
        plain: dict[str, Any] = json.loads(json.dumps(schema))  # singer-sdk leaves enumerations in it
        return plain

    @property
    def sdk_settings(self) -> set[str]:
        """The names of the settings that singer-sdk brings."""
        base = Tap if issubclass(self.plugin, Tap) else Target
        schema: dict[str, Any] = {"properties": {}}
        base.append_builtin_config(schema)
        return set(schema["properties"])


def connectors() -> Iterator[Connector]:
    """Every connector of the workspace, taps first."""
    for file in sorted(ROOT.glob("ta[pr]*s/*/pyproject.toml")):
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        [(name, target)] = project["scripts"].items()
        module, _, attribute = target.partition(":")
        plugin = getattr(importlib.import_module(module), attribute.split(".")[0])
        yield Connector(file.parent, name, project["name"], project["description"], project.get("keywords", []), plugin)


def main() -> int:
    """Write or check every generated file; 1 if something is out of step."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; show what is out of step")
    check = parser.parse_args().check
    stale = 0
    for path, text in _generated():
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        if before == text:
            continue
        stale += 1
        name = str(path.relative_to(ROOT))
        if check:
            sys.stdout.writelines(
                difflib.unified_diff(before.splitlines(True), text.splitlines(True), name, "as generated")
            )
        else:
            path.write_text(text, encoding="utf-8")
            sys.stdout.write(f"written: {name}\n")
    return 1 if check and stale else 0


def _generated() -> Iterator[tuple[Path, str]]:
    for connector in connectors():
        readme = connector.folder / "README.md"
        yield readme, _with_table(readme.read_text(encoding="utf-8"), settings_markdown(connector))
        yield connector.folder / "meltano-hub.yml", hub_yaml(connector)
    types: Any = importlib.import_module("melisma.arrow.type_table")
    yield ROOT / "docs" / "types.md", types.markdown()
    sys.path.append(str(ROOT / "tests" / "services"))
    matrix: Any = importlib.import_module("matrix")
    formats = ROOT / "docs" / "formats.md"
    before, _, rest = formats.read_text(encoding="utf-8").partition(MATRIX_START)
    after = rest.partition(MATRIX_END)[2]
    yield formats, f"{before}{MATRIX_START}\n\n{matrix.markdown()}\n{MATRIX_END}{after}"


def _with_table(readme: str, table: str) -> str:
    if START not in readme or END not in readme:
        readme = f"{readme.rstrip()}\n\n## Settings\n\n{START}\n{END}\n"
    before, _, rest = readme.partition(START)
    return f"{before}{START}\n\n{table}\n{END}{rest.partition(END)[2]}"


# Settings tables


def settings_markdown(connector: Connector) -> str:
    """Melisma's settings as a table, then singer-sdk's."""
    schema, sdk = connector.schema, connector.sdk_settings
    own = {name: node for name, node in schema["properties"].items() if name not in sdk}
    others = {name: node for name, node in schema["properties"].items() if name in sdk}
    required = schema.get("required", [])
    text = _table({"properties": own, "required": required})
    if others:
        text += "\nFrom singer-sdk, as in every connector built on it:\n\n"
        text += _table({"properties": others, "required": required})
    return text


def _table(schema: dict[str, Any]) -> str:
    lines = ["| Setting | Type | Default | Meaning |", "| --- | --- | --- | --- |"]
    lines += [f"| `{name}` | {kind} | {default} | {text} |" for name, kind, default, text in _rows(schema)]
    return "\n".join(lines) + "\n"


def _rows(schema: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    required = schema.get("required", [])
    for name, node in schema.get("properties", {}).items():
        if name.startswith("__"):  # the keys of singer-sdk's stream maps have a page of their own there
            continue
        path = f"{prefix}{name}"
        default = "required" if name in required else _code(node["default"]) if "default" in node else ""
        text = " ".join(str(node.get("description") or node.get("title") or "").split()).replace("|", "\\|")
        if node.get("secret"):
            text += " Secret."
        yield path, _type(node), default, _with_values(node, text)
        yield from _rows(node, f"{path}.")
        items = node.get("items")
        if isinstance(items, dict):
            yield from _rows(items, f"{path}[].")


def _with_values(node: dict[str, Any], text: str) -> str:
    values = node.get("enum") or (node.get("items") or {}).get("enum") or []
    missing = [value for value in values if value is not None and f"{value}" not in text]
    return f"{text} One of {', '.join(_code(value) for value in values if value is not None)}." if missing else text


def _type(node: dict[str, Any]) -> str:
    names = ["list" if kind == "array" else kind for kind in _kinds(node)]
    return " or ".join(names) or "string"


def _kinds(node: dict[str, Any]) -> list[str]:
    """JSON types without null, in order; a bare `const` counts as text."""
    kinds = node.get("type", [])
    kinds = kinds if isinstance(kinds, list) else [kinds]
    variants = [each for each in node.get("anyOf", []) + node.get("oneOf", []) if isinstance(each, dict)]
    kinds = [*kinds, *(kind for each in variants for kind in _kinds(each))]
    return [kind for kind in dict.fromkeys(kinds) if kind != "null"]


def _code(value: Any) -> str:
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


# Meltano Hub


def hub_yaml(connector: Connector) -> str:
    """The connector in the form of a Meltano Hub definition."""
    tap = connector.name.startswith("tap-")
    schema = connector.schema
    required = schema.get("required", [])
    definition: dict[str, Any] = {
        "capabilities": sorted(str(getattr(c, "value", c)) for c in connector.plugin.capabilities),
        "description": connector.description,
        "executable": connector.name,
        "keywords": ["meltano_sdk", *(k for k in connector.keywords if not k.startswith(("singer", "meltano")))],
        "label": connector.name.partition("-")[2].replace("-", " ").title(),
        "maintenance_status": "active",
        "name": connector.name,
        "namespace": connector.name.replace("-", "_"),
        "pip_url": connector.distribution,
        "settings": [
            entry for name, node in schema["properties"].items() for entry in _hub_settings(name, node, nested=False)
        ],
        "settings_group_validation": [list(required)],
        "variant": "melisma",
    }
    if tap:
        definition["select"] = ["*.*"]
    body: str = yaml.safe_dump(definition, sort_keys=True, allow_unicode=True, width=110)
    return REPOSITORY_NOTE + body


def _hub_settings(name: str, node: dict[str, Any], *, nested: bool) -> Iterator[dict[str, Any]]:
    """One entry; an object with named members becomes an entry for each, as on the Hub."""
    if node.get("properties") and not nested and "additionalProperties" not in node:
        for member, child in node["properties"].items():
            yield from _hub_settings(f"{name}.{member}", child, nested=True)
        return
    label = name.replace(".", " ").replace("_", " ").title()
    entry: dict[str, Any] = {"name": name, "label": label, "kind": _hub_kind(node)}
    text = " ".join(str(node.get("description") or "").split())
    if text:
        entry["description"] = text
    if "default" in node and node["default"] is not None:
        entry["value"] = node["default"]
    if entry["kind"] == "options":
        entry["options"] = [
            {"label": str(value).replace("_", " ").replace("-", " ").title(), "value": value}
            for value in node["enum"]
            if value is not None
        ]
    if node.get("secret"):
        entry["sensitive"] = True
    yield entry


def _hub_kind(node: dict[str, Any]) -> str:
    if node.get("enum"):
        return "options"
    kinds = _kinds(node)
    if "array" in kinds:
        return "array"
    if "object" in kinds:
        return "object"
    if node.get("format") == "date-time":
        return "date_iso8601"
    return {"integer": "integer", "number": "decimal", "boolean": "boolean"}.get(kinds[0] if kinds else "", "string")


if __name__ == "__main__":
    sys.exit(main())
