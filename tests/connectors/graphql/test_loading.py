"""What a declared query is understood to ask for, and how its mistakes are named, before anything is sent (SPEC 8)."""

from __future__ import annotations

import pytest

from tidegate.connectors.rest.loader import load
from tidegate.domain.errors import InvalidInput

YAML = """\
name: acme
base_url: https://acme.example
streams:
  orders:
    graphql:
      connection: shop.sales
      query: |
        query Orders($after: String, $since: DateTime, $first: Int = 50) {
          shop {
            sales: orders(first: $first, after: $after, since: $since) {
              edges { node { ...Wanted } }
              info: pageInfo { hasNextPage endCursor }
            }
          }
        }
        fragment Wanted on Order { id updatedAt customer { id } }
    page_size: {param: first, value: 20}
    cursor: {field: updatedAt, ascending: true}
    lower: {param: since, meaning: inclusive}
"""


def test_a_query_says_where_the_reply_holds_everything() -> None:
    """Aliases name the reply's members; fragments count; the variable of `after:` asks for the next page."""
    orders = load(YAML).streams["orders"]
    assert (orders.path, orders.method) == ("/graphql", "POST")
    assert (orders.records, orders.inside) == (("data", "shop", "sales", "edges"), "node")
    assert orders.pager.param == "after"
    assert orders.pager.token == ("data", "shop", "sales", "info", "endCursor")
    assert orders.pager.has_more == ("data", "shop", "sales", "info", "hasNextPage")


def test_a_list_without_a_connection_names_its_records_and_pager_like_any_stream() -> None:
    """One form for both: without `connection:` the reply's paths are declared as for REST."""
    yaml = """\
name: acme
base_url: https://acme.example
streams:
  issues:
    path: /api/query
    graphql: {query: "query ($page: Int) { issues(page: $page) { list { id meta } more } }"}
    records: data.issues.list
    key: meta.number
    pager: {type: page, param: page, has_more: data.issues.more}
"""
    issues = load(yaml).streams["issues"]
    assert (issues.path, issues.pager.param) == ("/api/query", "page")


MISTAKES = [
    ("pageInfo {", "pageInfo", "query", "line 15", "is not GraphQL"),
    ("Wanted }", "Wnted }", "query", "line 11", "Wnted"),
    ("since: $since)", "since: $sinc)", "query", "line 10", r"\$sinc"),
    ("query Orders", "mutation Orders", "query", "line 8", "is not one query"),
    ("connection: shop.sales", "connection: shop.orders", "query", "line 9", "nothing called shop.orders"),
    ("hasNextPage endCursor", "endCursor", "query", "line 10", "pageInfo"),
    ("after: $after", 'after: "x", before: $after', "query", "line 10", "after which record"),
    ("first: $first,", "last: $first,", "query", "line 10", "backwards"),
    ("edges { node { ...Wanted } }", "cursor { ...Wanted }", "query", "line 10", "no records"),
    ("updatedAt customer", "customer", "query", "line 11", "updatedAt"),
    ("id updatedAt", "updatedAt", "query", "line 11", "ask for id"),
    ("{param: since", "{param: sinse", "query", "line 8", "Did you mean 'since'"),
    ("$since: DateTime", "$since: DateTime!", "query", "line 8", "not always sent"),
    ("      connection:", "      conection:", "conection", "line 6", "Did you mean 'connection'"),
    ("    cursor: {", "    records: data.x\n    cursor: {", "records", "line 18", "told by the query"),
    ("    cursor: {", "    pager: {type: none}\n    cursor: {", "pager", "line 18", "told by the query"),
    ("    cursor: {", "    method: GET\n    cursor: {", "method", "line 18", "always POST"),
    ("name: acme", "name: acme\ngraphql: {retriable_codes: [X]}", "retriable_codes", "line 2", "retryable_codes"),
]


@pytest.mark.parametrize(("written", "instead", "field", "line", "said"), MISTAKES)
def test_a_mistake_names_its_line_and_the_remedy(written: str, instead: str, field: str, line: str, said: str) -> None:
    """SPEC 8: bad input is refused before anything is sent, naming path, line, problem and remedy."""
    assert written in YAML
    with pytest.raises(InvalidInput, match=said) as refused:
        load(YAML.replace(written, instead, 1))
    assert refused.value.field.endswith(field)
    assert f"({line})" in refused.value.problem
    assert refused.value.remedy


def test_a_query_written_on_one_line_names_the_line_it_begins_on() -> None:
    yaml = """\
name: acme
base_url: https://acme.example
streams:
  orders:
    records: data.orders
    graphql: {query: "query { orders { "}
"""
    with pytest.raises(InvalidInput, match=r"line 6, its line 1\) is not GraphQL"):
        load(yaml)


def test_records_outside_data_are_refused() -> None:
    yaml = """\
name: acme
base_url: https://acme.example
streams:
  orders:
    records: orders
    graphql: {query: "query { orders { id } }"}
"""
    with pytest.raises(InvalidInput, match="does not begin with data"):
        load(yaml)
