"""The API's description names every route, and what it says is true: schemathesis asks at random."""

from __future__ import annotations

import re

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from engine.web import openapi
from engine.web.app import ROUTES
from tests.web.conftest import WebSite

#: Examples of one operation; what is random is the same in every run.
_FIXED = settings(
    max_examples=8,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
#: Real names, so that answers with pictures and lists are checked, too.
_REAL = {"camera": "few", "key": "default:frames:few:1700000000000000000:00001"}


#: Valid requests of all paths, and invalid ones of those that have parameters to be invalid in. Not of events: an
#: answer to them does not end (tests/web/test_sse.py).
_CASES = [
    pytest.param(path, mode, id=f"{path} {mode.value}")
    for path, operations in sorted(openapi.describe()["paths"].items())
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    if not path.endswith("/events")
    and (mode is GenerationMode.POSITIVE or any(one["in"] == "query" for one in operations["get"]["parameters"]))
]


@pytest.mark.parametrize(("path", "mode"), _CASES)
def test_answers_are_as_described(web_site: WebSite, path: str, mode: GenerationMode):
    operation = schemathesis.openapi.from_dict(openapi.describe())[path]["GET"]
    base = f"http://127.0.0.1:{web_site.port}"

    @_FIXED
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: schemathesis.Case) -> None:
        # Parameters that are valid alone may contradict each other: an end before its start.
        case.call_and_validate(base_url=base, excluded_checks=[positive_data_acceptance])
        # An answer of a live path that exists does not end.
        if case.path_parameters and not path.endswith((".mjpeg", "live.mp4")):
            case.path_parameters = {name: _REAL[name] for name in case.path_parameters}
            response = case.call(base_url=base)
            assert response.status_code < 500, response.text

    check()


def test_every_route_of_the_api_is_described():
    paths = {re.sub(r":\w+}", "}", route.path) for route in ROUTES if getattr(route, "path", "").startswith("/api/")}
    assert paths == set(openapi.describe()["paths"])
