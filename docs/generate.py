"""The pages that nobody types: settings, tables, figures, commands and diffusions, from the code that defines them.

`everything` writes them into docs/reference/generated, which git ignores; Sphinx includes them.
"""

from __future__ import annotations

import inspect
import json
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

Schema = dict[str, Any]


def everything(docs: Path) -> None:
    """Write all generated pages."""
    folder = docs / "reference" / "generated"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    pages = {
        "settings": settings(), "tables": tables(), "figures": figures(docs), "cli": cli(), "diffusions": diffusions(),
    }  # fmt: skip
    for name, page in pages.items():
        (folder / f"{name}.md").write_text(page, encoding="utf-8")


def row(*cells: str) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join([row(*header), row(*["---"] * len(header)), *(row(*cells) for cells in rows)])


# settings


def settings() -> str:
    """Every section of a study's settings, from the JSON schema that also checks them."""
    from difftime.study.settings import Study

    schema = Study.model_json_schema()
    sections = [section("A study", schema)]
    sections += [section(name.removesuffix("Settings"), schema["$defs"][name]) for name in mentioned(schema)]
    return "\n\n".join(part for part in sections if part)


def mentioned(schema: Schema) -> list[str]:
    """The names of all definitions, in the order in which a reader meets them."""
    order: list[str] = []

    def walk(part: Any) -> None:
        if isinstance(part, dict):
            if (name := part.get("$ref", "").split("/")[-1]) and name not in order:
                order.append(name)
                walk(schema["$defs"][name])
            for value in part.values():
                walk(value)
        elif isinstance(part, list):
            for value in part:
                walk(value)

    walk({key: value for key, value in schema.items() if key != "$defs"})
    return order


def section(title: str, schema: Schema) -> str:
    """A heading and a table of keys; nothing for a type that has none."""
    if not schema.get("properties"):
        return ""
    rows = [
        [f"`{key}`", type_of(value), default_of(key, value, schema), said(value)]
        for key, value in schema["properties"].items()
    ]
    text = schema.get("description", "").split("\n\n")[0].replace("\n", " ")
    anchor = f"(settings-{title.lower().replace(' ', '-')})="
    return f"{anchor}\n## {title}\n\n{text}\n\n{table(['key', 'type', 'default', 'meaning'], rows)}"


def said(value: Schema) -> str:
    """What a key means, in one line."""
    return " ".join(value.get("description", "").split())


def default_of(key: str, value: Schema, schema: Schema) -> str:
    """The default as it would be typed."""
    if key in schema.get("required", []):
        return "required"
    default = value.get("default")
    if isinstance(default, dict) or (default is None and "default" not in value):
        return ""
    return f"`{json.dumps(default)}`" if len(json.dumps(default)) < 60 else ""


def type_of(value: Schema) -> str:
    """The type of a value, with links to the sections of its parts."""
    if "$ref" in value:
        name = value["$ref"].split("/")[-1]
        short = name.removesuffix("Settings")
        return f"[{short}](#settings-{short.lower()})"
    for several in ("anyOf", "oneOf"):
        if several in value:
            return " or ".join(dict.fromkeys(type_of(one) for one in value[several]))
    if "const" in value:
        return f"`{value['const']}`"
    if "enum" in value:
        return ", ".join(f"`{one}`" for one in value["enum"])
    if value.get("type") == "array":
        return f"list of {type_of(value.get('items', {}))}"
    if patterns := value.get("patternProperties"):
        return f"name: {type_of(*patterns.values())}"
    words = {"integer": "whole number", "string": "text", "boolean": "true or false"}
    return words.get(value.get("type", ""), value.get("type", "any")) + bounds(value)


def bounds(value: Schema) -> str:
    """The limits of a number."""
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return "".join(f" {sign} {value[key]:g}" for key, sign in signs.items() if key in value)


# tables


def tables() -> str:
    """Every table: what it says, and its columns, units and meanings."""
    from difftime.tables.schema import CAPTIONS, TABLES

    parts = []
    for name, columns in TABLES.items():
        rows = [
            [f"`{column.name}`", column.type, column.unit, "yes" if column.nullable else "", column.description]
            for column in columns
        ]
        shown = table(["column", "type", "unit", "may be null", "meaning"], rows)
        parts.append(f"(table-{name})=\n## {name}\n\n{CAPTIONS[name]}\n\n{shown}")
    return "\n\n".join(parts)


# figures


def figures(docs: Path) -> str:
    """Every figure: its caption, its table, and, where one is committed, its picture."""
    from difftime.study.registry import FIGURES

    parts = []
    for name, figure in FIGURES.items():
        caption = inspect.cleandoc(import_module(f"difftime.figures.{name}").__doc__ or "")
        per = "each network" if figure.each_net else "each data set"
        lines = [f"(figure-{name})=", f"## {name}", ""]
        if (docs / "figures" / f"{name}.png").exists():
            lines += [f"![The figure {name}](/figures/{name}.png)", ""]
        lines += [caption, "", f"Drawn for {per} from the table [{figure.table}](#table-{figure.table})."]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


# commands


def cli() -> str:
    """Every command with its arguments and options."""
    from typer.main import get_command

    from difftime.cli import app

    group = get_command(app)
    parts = [command_page(name, command) for name, command in group.commands.items() if not command.hidden]
    return "\n\n".join(parts)


def command_page(name: str, command: Any) -> str:
    """One command: what it does, how it is typed, what it takes."""
    shown = [one for one in command.params if one.name != "help" and not getattr(one, "hidden", False)]
    arguments = [one for one in shown if one.param_type_name == "argument"]
    typed = ["difftime", name, *map(spelled, arguments), *(["[OPTIONS]"] if len(shown) > len(arguments) else [])]
    rows = [[f"`{spelled(one)}`", preset(one), (getattr(one, "help", None) or "").strip()] for one in shown]
    takes = f"\n\n{table(['argument', 'default', 'meaning'], rows)}" if rows else ""
    said = inspect.cleandoc(command.help or "")
    return f"(command-{name})=\n## difftime {name}\n\n```sh\n{' '.join(typed)}\n```\n\n{said}{takes}"


def spelled(parameter: Any) -> str:
    """An argument in capitals, an option with its dashes."""
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper())
    return ", ".join([*parameter.opts, *parameter.secondary_opts])


def preset(parameter: Any) -> str:
    """The default of an option, as it would be typed."""
    if parameter.required:
        return "required"
    return "" if parameter.default is None or callable(parameter.default) else f"`{parameter.default}`"


# diffusions


def diffusions() -> str:
    """Every public diffusion with the class methods that make it, and at last what all of them have."""
    import difftime

    public = [getattr(difftime, name) for name in difftime.__all__]
    lines = []
    for one in (one for one in public if isinstance(one, type) and issubclass(one, difftime.SDE)):
        if one is not difftime.SDE:
            makers = ", ".join(name for name, value in vars(one).items() if isinstance(value, classmethod))
            lines += [f".. autoclass:: difftime.{one.__name__}", "   :show-inheritance:"]
            lines += [f"   :members: {makers}"] if makers else []
    return "\n".join(["```{eval-rst}", *lines, ".. autoclass:: difftime.SDE", "   :members:", "```"])
