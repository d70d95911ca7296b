"""Checking a connector's configuration: every fault in one line, by setting and rule, never with the value given.

singer-sdk's own messages quote the value, which may be a secret, and a misspelt setting passes in silence.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from singer_sdk.configuration._dict_config import parse_environment_config
from singer_sdk.exceptions import ConfigValidationError
from singer_sdk.helpers._classproperty import classproperty
from singer_sdk.plugin_base import JSONSchemaValidator, PluginBase

from melisma.errors import ConfigError

if TYPE_CHECKING:
    from jsonschema import ValidationError

__all__ = ["CheckedConfig", "ConfigFaults", "hold_to"]


class ConfigFaults(ConfigValidationError):
    """The configuration breaks its schema. `errors` holds one printable line for each fault."""


class CheckedConfig(PluginBase):
    """Mixin for taps and targets: configuration faults are named by setting and rule."""

    def _validate_config(self, *, raise_errors: bool = True) -> list[str]:
        schema = self.config_jsonschema
        self.append_builtin_config(schema)
        for line in misspelt(self._config, schema):
            self.logger.warning(line)
        errors = [explain(error) for error in JSONSchemaValidator(schema).iter_errors(self._config)]
        if self._config.get("flattening_enabled") and self._config.get("flattening_max_depth") is None:
            fix = "Set how many levels of objects become columns, 1 or more"
            errors.append(str(ConfigError("flattening_max_depth", "must be set with flattening_enabled", fix)))
        if errors and raise_errors:
            raise ConfigFaults("the configuration is not valid", errors=errors, schema=schema)
        for line in errors:
            self.logger.warning(line)
        return errors

    @classproperty
    def _env_var_config(cls) -> dict[str, Any]:  # noqa: N805
        schema = cls.config_jsonschema
        cls.append_builtin_config(schema)
        parse_environment_config({}, cls._env_var_prefix)  # brings in the .env file
        found: dict[str, Any] = {}
        for name, setting in schema["properties"].items():
            variable = cls._env_var_prefix + name.upper().replace("-", "_")
            if variable in os.environ:
                try:
                    found |= _from_environment(name, setting, variable, cls._env_var_prefix)
                except ValueError as error:
                    rule = f"the environment variable {variable} does not hold what the setting needs"
                    raise ConfigError(name, rule, "Numbers, lists and objects are written as JSON") from error
        return found


def _from_environment(name: str, setting: dict[str, Any], variable: str, prefix: str) -> dict[str, Any]:
    """As singer-sdk reads it; but it leaves numbers as text, and fails on settings that are a list or an object."""
    types = setting.get("type", ())
    if "number" in types or {"array", "object"} <= set(types):
        return {name: json.loads(os.environ[variable])}
    return parse_environment_config({"properties": {name: setting}}, prefix)


def explain(error: ValidationError) -> str:
    """One fault as a line: which setting, which rule, what is allowed."""
    path = _dotted(error.absolute_path)
    rule, fix = _rule(error)
    return str(ConfigError(path or "(the whole configuration)", rule, fix))


def hold_to(schema: dict[str, Any], value: Any, what: str) -> None:
    """Refuse a document that a call names and that breaks its JSON Schema.

    Args:
        schema: its JSON Schema.
        value: the document.
        what: what it is, for the message: "state", "catalog".

    Raises:
        ConfigError: the first rule that it breaks, and where.
    """
    for error in JSONSchemaValidator(schema).iter_errors(value):
        path = _dotted(error.absolute_path)
        raise ConfigError(f"{what}, {path}" if path else what, *_rule(error))


def misspelt(config: dict[str, Any], schema: dict[str, Any]) -> Iterable[str]:
    """A line for each setting that the connector does not have, with the nearest one that it has."""
    known = list(schema.get("properties", {}))
    for name in config:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f'Did you mean "{near[0]}"?' if near else "See --about for the settings there are."
            yield f'setting "{name}" is not known and has no effect. {hint}'


def _rule(error: ValidationError) -> tuple[str, str]:
    kind: str = str(error.validator)
    wanted: Any = error.validator_value
    instance: Any = error.instance
    parent: Any = error.schema
    if kind == "required":
        missing = [name for name in wanted if name not in instance]
        return f"{_list(missing)} must be set", ""
    if kind == "type":
        return f"must be of type {_list(wanted if isinstance(wanted, list) else [wanted], 'or')}", ""
    if kind == "enum":
        return "is not one of the values allowed", f"Valid values: {', '.join(str(v) for v in wanted)}"
    if kind == "const":
        return f"must be {wanted}", ""
    if kind in {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}:
        return f"must have {kind} {wanted}", ""
    if kind in {"minLength", "minItems", "minProperties"}:
        return "must not be shorter than " + str(wanted), ""
    if kind == "pattern":
        return f"does not match the pattern {wanted}", ""
    if kind == "additionalProperties":
        known = list(parent.get("properties", {}))
        extra = [name for name in instance if name not in known]
        return f"has unknown members: {_list(extra)}", f"Valid members: {', '.join(known)}"
    if kind in {"anyOf", "oneOf"} and error.context:
        return "fits none of the forms allowed (" + "; ".join(_rule(each)[0] for each in error.context) + ")", ""
    return f'breaks the rule "{kind}"', ""


def _dotted(path: Iterable[Any]) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _list(names: list[Any], last: str = "and") -> str:
    quoted = [f'"{name}"' for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} {last} {quoted[-1]}"
