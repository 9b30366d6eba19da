"""From what a study says, in a file or in Python, to a validated model, or to errors that its author can act on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from alignkit.errors import StudyError, nearest, quoted
from alignkit.settings.data import options_class
from alignkit.settings.modules import is_own

Model = TypeVar("Model", bound=BaseModel)

MOST_LINES = 10

_OWNERS = {"Study": "a study", "Settings": "a study", "Claim": "a claim", "Design": "a design"}

_WORDS = {
    "tuple_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "string_pattern_mismatch": "letters, digits, _ . and -, beginning with a letter or digit",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
}


def with_tags(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Name the default data and network where a study leaves `data.name` or `network.kind` out."""
    raw = dict(raw)
    for section, tag, default in (("data", "name", "digits"), ("network", "kind", "mlp")):
        if isinstance(raw.get(section), dict):
            raw[section] = {tag: default, **raw[section]}
    return raw


def validated(model: type[Model], raw: Mapping[str, Any], *, source: str, own_modules: bool = True) -> Model:
    """`model.model_validate(raw)`, with errors that the study's author can act on.

    Parameters
    ----------
    model : what to validate.
    raw : nested dictionaries, as a file has them.
    source : names the file in errors.
    own_modules : whether modules of the user's own are imported to check their options. Records are read without.

    Raises
    ------
    StudyError : a line for each key at fault.
    """
    try:
        return model.model_validate(with_tags(plain_values(raw)), context={"own_modules": own_modules})
    except ValidationError as error:
        raise explained(model, error, source=source) from None


def explained(model: type[BaseModel], error: ValidationError, *, source: str) -> StudyError:
    """The error that says, in a line for each key at fault, what was expected and what came."""
    lines = _explanations(model, error)
    more = [f"and {len(lines) - MOST_LINES} more"] if len(lines) > MOST_LINES else []
    return StudyError("\n".join(f"{source}: {line}" for line in [*lines[:MOST_LINES], *more]))


def built(model: type[Model]) -> type[Model]:
    """A decorator of what is built in Python as well as read: its errors are those of a file.

    It leaves validation as it is. pydantic builds what lies inside a study without calling initialisers.
    """
    initialise = model.__init__

    def build(self: Model, /, **options: Any) -> None:
        try:
            initialise(self, **with_tags(plain_values(options)))
        except ValidationError as error:
            raise explained(model, error, source=model.__name__) from None

    model.__init__ = build  # type: ignore[method-assign, assignment]
    return model


def plain_values(value: Any) -> Any:
    """What Python code may hold, as a file would: tuples, ranges and arrays become lists, numpy's numbers plain ones.

    >>> plain_values({"network.width": (8, 16), "network.dropout": range(2)})
    {'network.width': [8, 16], 'network.dropout': [0, 1]}
    """
    if isinstance(value, Mapping):
        return {key: plain_values(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | range):
        return [plain_values(inner) for inner in value]
    if isinstance(value, Path):
        return str(value)
    # numpy's arrays and scalars, and pandas' columns, without an import of either
    return value.tolist() if callable(getattr(value, "tolist", None)) else value


def _explanations(model: type[BaseModel], error: ValidationError) -> list[str]:
    """One line for each key at fault: what was expected there (of each alternative), what came."""
    lines: dict[str, list[str]] = {}
    for details in error.errors():
        key, expected, received = _explain(model, details)
        lines.setdefault(f"{key}\0{received}", []).append(expected)
    explained = []
    for place, alternatives in lines.items():
        key, _, received = place.partition("\0")
        text = ", or ".join(dict.fromkeys(alternatives)).replace(", or expected ", ", or ")
        explained.append(": ".join(part for part in (key, f"{text}; got {received}" if received else text) if part))
    return explained


def _explain(model: type[BaseModel], details: Any) -> tuple[str, str, str]:
    """The key of an error, what was expected there, and what came (empty where the text says it all)."""
    keys, fields = _walk(model, details["loc"])
    key, received = ".".join(keys), details["input"]
    if details["type"] == "extra_forbidden":
        owner = ".".join(keys[:-1]) or _OWNERS.get(model.__name__, model.__name__)
        return key, f"{owner} has no such key; {nearest(keys[-1], fields)}", ""
    if details["type"] == "missing":
        return key, "expected this key, which is missing. Add it", ""
    if details["type"] == "literal_error":
        expected = details["ctx"]["expected"].replace("'", '"')
        hint = ""
        if isinstance(received, str):
            options = [option.strip('" ') for option in expected.replace(" or ", ", ").split(",")]
            suggestion = nearest(received, options)
            hint = f"; {suggestion.split(' (valid')[0]}" if suggestion.startswith("did you") else ""
        return key, f"expected {expected}", f"{quoted(received)}{hint}"
    if details["type"] == "union_tag_invalid":
        tag = details["ctx"]["discriminator"].strip("'")
        own = ', or "module:Class" for one of your own' if key == "data" else ""
        return f"{key}.{tag}", f"expected {details['ctx']['expected_tags']}{own}", quoted(details["ctx"]["tag"])
    if details["type"] == "value_error":
        return key, details["msg"].removeprefix("Value error, "), ""
    if key == "claims" and details["type"] == "tuple_type":
        return key, "expected a list of tables: write [[claims]], with double brackets", ""
    if details["type"] in ("too_short", "too_long") and isinstance(received, list | tuple | dict):
        bounds = details["ctx"]
        bound = f"at least {bounds['min_length']}" if "min_length" in bounds else f"at most {bounds['max_length']}"
        return key, f"expected {bound} items", f"{len(received)}: {quoted(received)}"
    message = _WORDS.get(details["type"]) or details["msg"].removeprefix("Input should be ")
    return key, f"expected {message}", quoted(received)


def _walk(model: type[BaseModel], location: tuple[Any, ...]) -> tuple[list[str], list[str]]:
    """The dotted key of an error, without the names that pydantic adds for unions, and the keys valid there."""
    keys: list[str] = []
    current: list[type[BaseModel]] = [model]
    for part in map(str, location):
        field = next((m.model_fields[part] for m in current if part in m.model_fields), None)
        tagged = [m for m in current if part in _tags(m)]
        if field is not None:
            keys.append(part)
            current = _models(field.annotation) or current
        elif tagged and keys:
            current = tagged
        elif keys == ["data"] and is_own(part):
            current = [options_class(part)]
        elif part not in ("constrained-int", "int", "str") and not set(part) & set("[]()"):
            keys.append(part)
    return keys, sorted({name for m in current for name in m.model_fields})


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models inside an annotation, whatever lists, unions and tables they are wrapped in."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models(inner)]


def _tags(model: type[BaseModel]) -> set[str]:
    """The names by which a union tells this model from others: literals with a single value."""
    literals = (field.annotation for field in model.model_fields.values() if get_origin(field.annotation) is Literal)
    return {str(get_args(literal)[0]) for literal in literals if len(get_args(literal)) == 1}
