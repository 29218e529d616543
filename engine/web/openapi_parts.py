"""Words in which route modules describe their routes in OpenAPI 3.1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Part = dict[str, Any]

_TIME = {
    "anyOf": [
        {"type": "integer", "minimum": 10**18, "maximum": 10**19 - 1},
        {"type": "string", "format": "date-time"},
        {"const": "now"},
        {"type": "string", "pattern": r"^-[1-9][0-9]{0,5}(ns|us|ms|s|m|h|d)$"},
    ]
}
_SPAN = {"type": "string", "pattern": r"^[1-9][0-9]{0,5}(ns|us|ms|s|m|h|d)$"}
#: What each problem status means, in an answer to a route's own refusals.
_PROBLEMS = {
    400: "No request of this form is answered: zero bytes, or a path that is none.",
    401: "A token is required.",
    403: "This token may not read this.",
    404: "Nothing is known or stored under this name.",
    406: "This has no form that players know.",
    409: "This camera has nothing of this kind; the text names what it has.",
    414: "The address is too long.",
    422: "A parameter is invalid or out of bounds; the text names it and its limits.",
    429: "Too many requests from this address.",
    502: "What is stored there cannot be used.",
    503: "Redis does not answer, or too much waits. Try again later.",
}


def camera_in_path() -> Part:
    """The parameter ``camera`` of a path."""
    text = "The camera's id, percent-encoded once: `a%2Fb` is camera `a/b`."
    return {"name": "camera", "in": "path", "required": True, "description": text, "schema": {"type": "string"}}


def parameter(name: str, schema: Part, text: str) -> Part:
    """A parameter of the query."""
    return {"name": name, "in": "query", "description": text, "schema": schema}


def time_of(name: str, text: str) -> Part:
    """A parameter that is a time."""
    forms = "Nanoseconds since the epoch, RFC 3339, `now`, or an offset from now such as `-30s`."
    return parameter(name, _TIME, f"{text} {forms}")


def span_of(name: str, text: str) -> Part:
    """A parameter that is a duration."""
    return parameter(name, _SPAN, f"{text} A number and a unit: ns, us, ms, s, m, h, d.")


def number_of(name: str, low: int, high: int, text: str, default: int | None = None) -> Part:
    """A parameter that is a whole number."""
    schema: Part = {"type": "integer", "minimum": low, "maximum": high}
    return parameter(name, schema if default is None else {**schema, "default": default}, text)


def flag_of(name: str, text: str) -> Part:
    """A parameter that is true or false."""
    return parameter(name, {"type": "boolean", "default": False}, text)


def json_of(schema: str | Part, text: str) -> Part:
    """An answer in JSON; ``schema`` may be the name of a component."""
    found = {"$ref": f"#/components/schemas/{schema}"} if isinstance(schema, str) else schema
    return {"description": text, "content": {"application/json": {"schema": found}}}


def get(
    summary: str,
    answers: dict[int, Part],
    *,
    parameters: Sequence[Part] = (),
    problems: Sequence[int] = (),
    tag: str = "site",
) -> Part:
    """The operations of a path that is only read. ``problems`` are its statuses with a problem document, besides those
    that any route may have."""
    responses = {str(status): answer for status, answer in answers.items()}
    for status in sorted({400, 401, 403, 414, 429, *problems}):
        problem = {"$ref": "#/components/schemas/Problem"}
        responses[str(status)] = {
            "description": _PROBLEMS[status],
            "content": {"application/problem+json": {"schema": problem}},
        }
    return {"get": {"summary": summary, "tags": [tag], "parameters": list(parameters), "responses": responses}}
