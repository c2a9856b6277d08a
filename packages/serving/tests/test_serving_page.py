"""Claims about the page's files: all are served, nothing else is, none names another host, both languages are whole."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path

import httpx
import pytest

from fulmen_serving.api.edge import Edge
from fulmen_serving.api.page_route import page_files
from fulmen_serving.platform.database import Database
from fulmen_serving.platform.platform import Platform

PAGE = Path(str(files("fulmen_serving") / "page"))
OWN = [path for path in sorted(PAGE.rglob("*")) if path.is_file() and "vendor" not in path.parts]
SCRIPTS = [path for path in OWN if path.suffix == ".js"]


@pytest.fixture(scope="module")
def client(kit):
    with kit.service() as service, kit.server(service) as url, httpx.Client(base_url=url) as client:
        yield client


def test_the_page_and_every_file_of_it_are_served_with_the_same_policy(client):
    assert client.get("/").text == (PAGE / "index.html").read_text()
    served = page_files()
    assert {"index.html", "main.js", "text/zh.json", "vendor/markdown-it/markdown-it.mjs"} <= served.keys()
    for path in served:
        response = client.get(f"/page/{path}")
        assert response.content == (PAGE / path).read_bytes(), path
        policy = dict(part.split(" ", 1) for part in response.headers["content-security-policy"].split("; "))
        assert (policy["default-src"], policy["script-src"], policy["img-src"]) == ("'none'", "'self'", "'self'")
        assert policy["require-trusted-types-for"] == "'script'"
        assert response.headers["x-content-type-options"] == "nosniff"
    assert client.get("/page/main.js").headers["content-type"] == "text/javascript; charset=utf-8"


def test_a_file_that_did_not_change_is_not_sent_again(client):
    first = client.get("/page/main.js")
    again = client.get("/page/main.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("path", ["../service.py", "%2e%2e/service.py", "vendor/README.md", "nothing.js", ""])
def test_nothing_else_can_be_asked_for(client, path):
    response = client.get(f"/page/{path}")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "unknown_url"


def test_the_api_is_as_it_was_beside_the_page(client):
    assert client.get("/v1/chat/completions").status_code == 405
    assert client.post("/").status_code == 405
    assert "/" not in client.get("/openapi.json").json()["paths"]


def test_the_page_is_shown_to_who_has_no_key_yet(kit, tmp_path):
    platform = Platform(Database(str(tmp_path / "p.db")))
    with kit.service() as service, kit.server(service, edge=Edge(platform)) as url:
        assert httpx.get(url).status_code == 200
        assert httpx.get(f"{url}/v1/models").status_code == 401
    platform.close()


@pytest.mark.parametrize("path", OWN, ids=lambda path: str(path.relative_to(PAGE)))
def test_no_file_names_another_host_or_makes_markup_of_text(path):
    text = path.read_text()
    hosts = re.findall(r"https?://[\w.-]+", text)
    assert [host for host in hosts if host != "http://www.w3.org"] == []  # the name of SVG, which is not fetched
    assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", text) == []


def words(language: str) -> dict[str, str]:
    def unique(pairs: list[tuple[str, str]]) -> dict[str, str]:
        assert len(dict(pairs)) == len(pairs), "a key stands twice"
        return dict(pairs)

    return json.loads((PAGE / f"text/{language}.json").read_text(), object_pairs_hook=unique)


def test_both_languages_say_the_same_things_with_the_same_values():
    english, chinese = words("en"), words("zh")
    assert english.keys() == chinese.keys()
    for key, text in english.items():
        assert text.strip()
        assert chinese[key].strip()
        assert sorted(re.findall(r"\{\w+\}", text)) == sorted(re.findall(r"\{\w+\}", chinese[key])), key
    # a text without any Chinese is one that nobody translated, but for names
    untranslated = {key for key, text in chinese.items() if not re.search(r"[一-鿿]", text)}
    assert untranslated <= {"parameters.top_p"}


def test_every_word_that_a_script_asks_for_exists_and_none_is_left_over():
    source = "\n".join(path.read_text() for path in SCRIPTS)
    asked = set(re.findall(r"\bt(?:Or)?\(\s*'([\w.]+)'", source)) | set(re.findall(r"'(shortcut\.\w+)'", source))
    composed = re.findall(r"\bt(?:Or)?\(\s*`([^`]+)`", source)  # t(`theme.${theme()}`)
    patterns = [r"[\w.]+".join(map(re.escape, re.split(r"\$\{.*?\}", text))) for text in composed]
    assert asked <= words("en").keys()
    for pattern in patterns:
        assert any(re.fullmatch(pattern, key) for key in words("en")), pattern
    unused = {key for key in words("en").keys() - asked if not any(re.fullmatch(one, key) for one in patterns)}
    assert unused == set()


def test_the_files_of_others_are_whole_and_licensed():
    for folder in (PAGE / "vendor").iterdir():
        if folder.is_dir():
            assert (folder / "LICENSE").read_text().strip()
            assert folder.name in (PAGE / "vendor/README.md").read_text()
