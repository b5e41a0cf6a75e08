"""What docker-compose.yml says, read as Compose reads it: anchors merged, `${…}` filled in.

For tests that check the file, and for tests that start its very commands as processes without Docker.
"""

import re
import shlex
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
COMPOSE_FILE = ROOT / "docker-compose.yml"
EXAMPLE_FILE = ROOT / ".env.example"

_VARIABLE = re.compile(r"\$(?:(?P<escaped>\$)|\{(?P<name>\w+)(?P<operator>:-|:\?)?(?P<rest>[^}]*)\})")


class VariableMissing(LookupError):
    """A variable that the file requires has no value; the message is the file's own."""


def required_variables() -> list[str]:
    """The variables that .env.example asks the reader to fill in: those left empty and not commented out."""
    return re.findall(r"^(\w+)=$", EXAMPLE_FILE.read_text(), flags=re.MULTILINE)


def example_environment() -> dict[str, str]:
    """A value for every required variable."""
    return {name: f"example-{name.lower().replace('_', '-')}" for name in required_variables()}


def load(environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The whole file. Raises VariableMissing where a required variable is unset or empty."""
    given = example_environment() if environment is None else environment
    document: dict[str, Any] = _fill(_parsed(COMPOSE_FILE.read_text()), given)
    return document


def services(environment: Mapping[str, str] | None = None) -> dict[str, dict[str, Any]]:
    """All services by name."""
    found: dict[str, dict[str, Any]] = load(environment)["services"]
    return found


def service_command(name: str, environment: Mapping[str, str] | None = None) -> list[str]:
    """The command of a service, as an argument list; to be run in the repository's root."""
    command = services(environment)[name]["command"]
    return shlex.split(command) if isinstance(command, str) else [str(word) for word in command]


def service_environment(name: str, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment that a service is given; what has no value in the file is passed on where it has one outside."""
    given, listed = environment or {}, services(environment)[name].get("environment", {})
    return {key: given[key] if value is None else str(value) for key, value in listed.items() if value is not None or key in given}


def passed_on() -> set[str]:
    """Variables that are passed on to services where they have a value outside, and left out where they have none."""
    return {key for found in services().values() for key, value in found.get("environment", {}).items() if value is None}


@cache
def _parsed(text: str) -> Any:
    return yaml.safe_load(text)


def _fill(node: Any, environment: Mapping[str, str]) -> Any:
    if isinstance(node, dict):
        return {key: _fill(value, environment) for key, value in node.items()}
    if isinstance(node, list):
        return [_fill(value, environment) for value in node]
    return _VARIABLE.sub(lambda match: _value(match, environment), node) if isinstance(node, str) else node


def _value(match: re.Match[str], environment: Mapping[str, str]) -> str:
    if match["escaped"]:
        return "$"
    value = environment.get(match["name"], "")
    if not value and match["operator"] == ":?":
        raise VariableMissing(match["rest"])
    return value or (match["rest"] if match["operator"] == ":-" else "")
