"""What the shipped declarations name, held against the schemas that the platforms, or their clients, publish."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import pytest

from tests.connectors.published import published
from tidegate.connectors.registry import find_connector
from tidegate.connectors.rest.connector import RestConnector
from tidegate.connectors.rest.declaration import StreamDeclaration

GITHUB = "@octokit/openapi@23.0.2"
HUBSPOT = "@hubspot/api-client@14.0.1"
STRIPE = "stripe@17.7.0"
WOOCOMMERCE = "woocommerce-rest-ts-api@8.0.0"


def declared(name: str) -> Mapping[str, StreamDeclaration]:
    connector = find_connector(name)
    assert isinstance(connector, RestConnector)
    return connector.declaration.streams


def parameters(stream: StreamDeclaration) -> dict[str, object]:
    """All that may be sent, with its value where that is fixed."""
    bounds = [bound.param for bound in (stream.lower, stream.upper) if bound]
    within = stream.pager.within or stream.pager
    names = [*bounds, within.param, stream.pager.param]
    return {**stream.params, **stream.filters, **dict.fromkeys(filter(None, names))}


def fields(stream: StreamDeclaration) -> set[tuple[str, ...]]:
    cursor = stream.stream.cursor
    found = {tuple(key.split(".")) for key in stream.stream.key} | {(column,) for column in stream.stream.columns}
    return found | ({cursor.path} if cursor else set())


@pytest.fixture(scope="module")
def github(request: pytest.FixtureRequest) -> Any:
    (document,) = published(request.config, GITHUB, r"package/generated/api\.github\.com\.json").values()
    return msgspec.json.decode(document)


def _resolved(schema: Any, root: Any) -> Any:
    while "$ref" in schema:
        found = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        schema = found
    return schema


def _has(schema: Any, path: Iterable[str], root: Any) -> bool:
    for name in path:
        schema = _resolved(schema, root)
        choices = [schema, *(_resolved(one, root) for one in schema.get("anyOf", schema.get("oneOf", [])))]
        found = next((one["properties"][name] for one in choices if name in one.get("properties", {})), None)
        if found is None:
            return False
        schema = found
    return True


def test_githubs_paths_parameters_and_fields_are_in_its_openapi_description(github: Any) -> None:
    checked = 0
    for stream in declared("github").values():
        path = stream.path.replace("{settings.owner}", "{owner}").replace("{settings.repository}", "{repo}")
        operation = github["paths"][path]["get"]
        known = {(one := _resolved(given, github))["name"]: one["schema"] for given in operation["parameters"]}
        for name, value in parameters(stream).items():
            assert name in known, f"{path} has no parameter {name}"
            assert value is None or value in _resolved(known[name], github).get("enum", [value])
        reply = _resolved(operation["responses"]["200"], github)["content"]["application/json"]["schema"]
        for field in fields(stream):
            assert _has(_resolved(reply, github)["items"], field, github), f"{path} shows no {'.'.join(field)}"
            checked += 1
    assert checked > 30
    record = {"$ref": "#/components/schemas/issue"}
    assert not _has(record, ("updated",), github), "the check can fail"


def _map(source: bytes) -> dict[str, str]:
    """Names and types of one generated model."""
    return dict(re.findall(r'"baseName": "(\w+)",\s+"type": "([^"]+)"', source.decode()))


def test_hubspots_paths_bodies_and_fields_are_in_its_own_clients_models(request: pytest.FixtureRequest) -> None:
    client = published(request.config, HUBSPOT, r"package/lib/codegen/crm/\w+/(apis|models)/\w+\.js")

    def model(kind: str, name: str) -> bytes:
        return client[f"package/lib/codegen/crm/{kind}/models/{name}.js"]

    checked = 0
    for kind, stream in declared("hubspot").items():
        api = client[f"package/lib/codegen/crm/{kind}/apis/SearchApi.js"].decode()
        assert f"'{stream.path}'" in api
        asked, one_filter = _map(model(kind, "PublicObjectSearchRequest")), _map(model(kind, "Filter"))
        operators = set(re.findall(r'FilterOperatorEnum\["\w+"\] = "(\w+)"', model(kind, "Filter").decode()))
        for body in (stream.body, stream.pager.ties):
            assert isinstance(body, dict)
            assert set(body) <= set(asked)
            for condition in body["filterGroups"][0]["filters"]:
                assert set(condition) <= set(one_filter)
                assert condition["operator"] in operators
        assert stream.records == ("results",)
        assert "results" in _map(model(kind, _model_of_reply(api)))
        assert "after" in _map(model(kind, "NextPage"))
        assert stream.pager.within is not None
        assert stream.pager.within.token == ("paging", "next", "after")
        record = _map(model(kind, "SimplePublicObject"))
        for field in fields(stream):
            assert field[0] in record
            checked += 1
        assert stream.stream.cursor is not None
        assert stream.stream.cursor.path[1] in stream.body["properties"]  # type: ignore[index,operator]
    assert checked == 18


def _model_of_reply(api: str) -> str:
    found = re.search(
        r'deserialize\(ObjectSerializer_1\.ObjectSerializer\.parse\(.*?"(\w+WithTotal\w+)"', api, re.DOTALL
    )
    return found[1] if found else "CollectionResponseWithTotalSimplePublicObject"


def test_woocommerces_fields_are_in_the_types_published_for_it(request: pytest.FixtureRequest) -> None:
    """WooCommerce publishes no schema as a package: these types are a client's. Parameters are the double's to check."""
    (found,) = published(request.config, WOOCOMMERCE, r"package/dist/src/types/models/index\.d\.ts").values()
    types = found.decode()
    checked = 0
    for name, stream in declared("woocommerce").items():
        body = re.search(rf"interface {name.capitalize()} {{(.*?)\n}}", types, re.DOTALL)
        assert body is not None
        known = set(re.findall(r"^    (\w+)\??:", body[1], re.MULTILINE))
        assert {field[0] for field in fields(stream)} <= known
        checked += len(fields(stream))
    assert checked > 30
    products = re.search(r"interface Products {(.*?)\n}", types, re.DOTALL)
    assert products is not None
    asked = parameters(declared("woocommerce")["products"])
    assert {name for name in asked if f"    {name}?:" not in products[1]} == set()


STRIPES = {
    "charges": "Charge",
    "customers": "Customer",
    "events": "Event",
    "refunds": "Refund",
    "balance_transactions": "BalanceTransaction",
}


def test_stripes_version_parameters_and_fields_are_in_its_own_clients_types(request: pytest.FixtureRequest) -> None:
    client = published(request.config, STRIPE, r"package/(types/\w+\.d\.ts|cjs/apiVersion\.js)")
    connector = find_connector("stripe")
    assert isinstance(connector, RestConnector)
    version = connector.declaration.headers["Stripe-Version"]
    assert f"ApiVersion = '{version}'" in client["package/cjs/apiVersion.js"].decode()
    assert set(STRIPES) == set(connector.streams)
    checked = 0
    for name, stream in declared("stripe").items():
        record = (
            client[f"package/types/{STRIPES[name]}s.d.ts"].decode().replace("interface EventBase ", "interface Event ")
        )
        listing = client[f"package/types/{STRIPES[name]}sResource.d.ts"].decode()
        body = re.search(rf"^    interface {STRIPES[name]} {{(.*?)^    }}", record, re.DOTALL | re.MULTILINE)
        assert body is not None
        known = set(re.findall(r"^      (\w+)\??:", body[1], re.MULTILINE))
        assert {field[0] for field in fields(stream)} <= known
        checked += len(fields(stream))
        assert f"interface {STRIPES[name]}ListParams" in listing
        bounds = [bound.param for bound in (stream.lower, stream.upper) if bound]
        assert set(bounds) <= {f"created[{operator}]" for operator in ("gt", "gte", "lt", "lte")}
        assert not bounds or "created?: Stripe.RangeQueryParam" in listing
    assert checked > 25
