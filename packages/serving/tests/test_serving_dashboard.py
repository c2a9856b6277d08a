"""Claims about the dashboard and the alerts in `examples/deploy`: what they ask for, a real server tells."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

DEPLOY = Path(__file__).parents[3] / "examples/deploy"
DASHBOARD = json.loads((DEPLOY / "grafana/fulmen.json").read_text())
RULES = yaml.safe_load((DEPLOY / "prometheus/fulmen-alerts.yaml").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
#: What Prometheus itself knows of every target.
OF_PROMETHEUS = {"up"}
OF_SCRAPING = {"job", "instance"}


def selectors(expression: str) -> list[tuple[str, set[str]]]:
    """The metrics of a query, each with the labels that it is chosen by."""
    found: list[tuple[str, set[str]]] = []

    def visit(node: object) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            found.append((node.name, {matcher.name for matcher in node.matchers.matchers}))
        return True

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found


@pytest.fixture(scope="module")
def told(kit) -> dict[str, set[str]]:
    """The samples of a real server that answered and refused, by name, each with its labels."""
    with kit.service() as service, kit.server(service) as url:
        body = {"model": "parrot", "messages": [{"role": "user", "content": "hello"}]}
        assert httpx.post(url + "/v1/chat/completions", json=body).status_code == 200
        assert httpx.post(url + "/v1/chat/completions", json={}).status_code == 400
        text = httpx.get(url + "/metrics").text
    samples: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, set()).update(sample.labels)
    return samples


def queries() -> list[object]:
    """Every query, by where it stands."""
    found = []
    for panel in PANELS:
        for target in panel["targets"]:
            filled = target["expr"].replace("$__rate_interval", "5m").replace("$job", ".*").replace("$instance", ".*")
            found.append(pytest.param(filled, id=f"{panel['title']}: {target['legendFormat']}"))
    for rule in RULES["groups"][0]["rules"]:
        found.append(pytest.param(rule["expr"], id=rule["alert"]))
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            chosen, _ = variable["query"].removeprefix("label_values(").removesuffix(")").rsplit(", ", 1)
            found.append(pytest.param(chosen.replace("$job", ".*"), id=f"variable {variable['name']}"))
    return found


@pytest.mark.parametrize("expression", queries())
def test_every_metric_and_label_that_is_asked_for_exists(expression, told):
    asked = selectors(expression)
    assert asked
    for name, labels in asked:
        assert name in told.keys() | OF_PROMETHEUS
        assert labels <= told.get(name, set()) | OF_SCRAPING


def test_the_chart_scales_on_metrics_that_exist(told):
    template = (DEPLOY / "helm/fulmen/templates/hpa.yaml").read_text()
    scaled_on = re.findall(r"metric: \{name: (\w+)\}", template)
    assert scaled_on == ["fulmen_queued_requests", "fulmen_model_busy_fraction"]
    assert set(scaled_on) <= told.keys()


def test_panels_have_places_of_their_own_and_say_what_they_show():
    places = set()
    for panel in DASHBOARD["panels"]:
        grid = panel["gridPos"]
        squares = {
            (x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert grid["x"] + grid["w"] <= 24
        assert not squares & places
        places |= squares
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert all(panel["description"].endswith(".") for panel in PANELS)


def test_every_alert_is_tested_and_says_what_to_do():
    names = {rule["alert"] for rule in RULES["groups"][0]["rules"]}
    tests = yaml.safe_load((DEPLOY / "prometheus/fulmen-alerts.test.yaml").read_text())["tests"]
    assert {case["alertname"] for case in tests[0]["alert_rule_test"]} == names
    fired = {sample["labels"] for sample in tests[2]["promql_expr_test"][0]["exp_samples"]}
    assert fired == {f'{{alertname="{name}"}}' for name in names}
    for rule in RULES["groups"][0]["rules"]:
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"].keys() == {"summary", "description"}
