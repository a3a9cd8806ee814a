"""The API client beside the gateway's own `/openapi.json`: paths, parameters, fields; and real calls."""

from __future__ import annotations

import re
import types
import typing
from typing import Any
from urllib.parse import unquote

import pytest
from conftest import Site

import exitgate
from exitgate import Gateway, models


@pytest.fixture
def document(gateway: Gateway) -> dict[str, Any]:
    return typing.cast("dict[str, Any]", gateway.call("GET", "/openapi.json"))


def test_every_call_is_in_the_description(gateway: Gateway, document: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, str, dict[str, Any], Any]] = []

    def record(method: str, path: str, query: dict[str, Any] | None = None, body: Any = None, timeout: float | None = None) -> Any:
        calls.append((method, path, query or {}, body))
        return {"exits": [], "proxies": [], "countries": []}

    recorded = Gateway()
    monkeypatch.setattr(recorded, "call", record)
    recorded.routes._call = record
    routes = recorded.routes
    recorded.why("us", session="a", strict=True, site="x", port=80, key="k")
    list(recorded.exits(country="us", usable=True, source="tor"))
    recorded.countries()
    list(routes.list(name="a", origin="api", mode="strict"))
    everything = {field: None for field in typing.get_type_hints(models.RouteOptions)}
    routes.get("a"), routes.create("us", **everything), routes.create_many(2, "us", **everything)  # type: ignore[typeddict-item]
    routes.change("a", **everything), routes.delete("a", force=True), routes.exits("a")  # type: ignore[typeddict-item]
    routes.last("a", session="s", key="k"), routes.rotate("a", session="s", key="k")
    routes.report("a", "shop.example", exit="e", session="s", outcome="o", key="k")
    recorded.call("GET", "/ready")
    recorded.call("POST", "/reload")
    public = [name for name in dir(routes) if not name.startswith("_")]
    assert len(calls) == len(public) + 3 + 2, "a method of Routes is missing here"

    for method, path, query, body in calls:
        template = next((known for known in document["paths"] if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", known), unquote(path))), None)
        assert template, f"{path} is not in the description"
        operation = document["paths"][template].get(method.lower())
        assert operation, f"{method} {template} is not in the description"
        parameters = {one["name"] for one in operation.get("parameters", []) if one["in"] == "query"}
        assert set(query) <= parameters, (method, template, set(query) - parameters)
        if body is not None:
            schema = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
            fields = set(document["components"]["schemas"][schema]["properties"])
            assert set(body) <= fields, (method, template, set(body) - fields)


# Where the description has another name. `Proxy` is what the API calls a route.
NAMES = {
    "Step": "StepShown", "Pin": "PinShown", "Pool": "PoolShown", "Route": "Proxy", "RouteSpec": "NewProxy", "Ban": "BanShown",
    "Country": "CountryShown",
}  # fmt: skip
NOT_OF_THE_API = {"CurrentExit", "Moved", "Reported", "RouteOptions", "Seen"}


def shape(hint: Any) -> set[str]:
    """The JSON types that a type allows."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return set().union(*(shape(part) for part in typing.get_args(hint)))
    if origin is typing.Literal:
        return {"string"}
    if typing.is_typeddict(hint) or origin is dict or hint is dict:
        return {"object"}
    return {{list: "array", str: "string", int: "integer", bool: "boolean", type(None): "null"}[origin or hint]}


def described(schema: dict[str, Any], schemas: dict[str, Any]) -> set[str]:
    if "$ref" in schema:
        return described(schemas[schema["$ref"].rsplit("/", 1)[1]], schemas)
    for word in ("oneOf", "anyOf", "allOf"):
        if word in schema:
            return set().union(*(described(part, schemas) for part in schema[word]))
    kinds = schema.get("type", "object")
    return set(kinds) if isinstance(kinds, list) else {kinds}


def test_every_type_has_the_fields_of_the_description(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    compared = 0
    for name, kind in vars(models).items():
        if not typing.is_typeddict(kind) or name.startswith("_") or name in NOT_OF_THE_API:
            continue
        schema = schemas[NAMES.get(name, name)]
        fields, required = schema["properties"], set(schema.get("required", []))
        hints = typing.get_type_hints(kind)
        unknown = set(hints) - set(fields)
        assert not unknown, f"{name} has fields that the API does not have: {unknown}"
        assert kind.__required_keys__ <= required, f"{name}: {kind.__required_keys__ - required} may be missing in an answer"
        for field, hint in hints.items():
            theirs = described(fields[field], schemas)
            if name == "RouteSpec":
                assert shape(hint) <= theirs | {"null"}, (name, field, shape(hint), theirs)
            else:
                assert theirs <= shape(hint), (name, field, shape(hint), theirs)
        compared += 1
    assert compared >= 15
    missing = set(schemas["NewProxy"]["properties"]) - set(typing.get_type_hints(models.RouteSpec))
    assert not missing, f"routes cannot be created with {missing}"


def test_routes_live(gateway: Gateway, site: Site) -> None:
    routes = gateway.routes
    shop = routes.create("us-strict", name="shop", pool=2)
    assert routes.create("us-strict", name="shop", pool=2)["created"] == shop["created"], "the same body again"
    assert [route["name"] for route in routes.list()] == ["shop"] and routes.get(shop["port"] or 0)["name"] == "shop"
    assert routes.change("shop", pool=3, ttl="1h")["expires"]
    first = routes.rotate("shop")["exit"]
    second = routes.rotate("shop")
    assert second["before_exit"] == first["id"] and second["exit"]["id"] == routes.last("shop")["id"] != first["id"]
    ban = routes.report("shop", site.https, exit=first["id"], outcome="captcha")
    assert (ban["site"], ban["exit"]) == (site.ip, first["id"])
    assert {exit["country"] for exit in routes.exits("shop")} == {"US"}
    assert len(routes.create_many(2, "any")) == 2
    for route in list(routes.list()):
        assert routes.delete(route["name"], force=True)["state"] == "closed"
    with pytest.raises(exitgate.NotFound) as missing:
        routes.get("shop/é ?")
    assert missing.value.code == "not_found" and missing.value.status == 404 and missing.value.request_id
    with pytest.raises(exitgate.ApiError) as wrong:
        routes.create("us-strcit")
    assert wrong.value.status == 422 and "strict" in wrong.value.message and wrong.value.details


def test_exits_and_why(gateway: Gateway) -> None:
    assert len(list(gateway.exits())) == 8 and {exit["country"] for exit in gateway.exits(country="de", usable=True)} == {"DE"}
    assert sum(country["known"] for country in gateway.countries()) == 8
    explained = gateway.why("jp")
    assert explained["refused"] and explained["pool"] == [] and "0 in jp" in explained["text"]


def test_pages_are_followed(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    call = gateway.call
    monkeypatch.setattr(gateway, "call", lambda method, path, query: call(method, path, {**query, "limit": 3}))
    assert len({exit["id"] for exit in gateway.exits()}) == 8
