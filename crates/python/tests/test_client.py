"""The client has the answers that the model in this process has."""

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import ams
from conftest import Shop


@pytest.fixture(scope="module")
def url(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("serve") / "log"
    command = [str(Path(sys.executable).with_name("ams")), "serve", str(shop.models), "--bind", "127.0.0.1:0"]
    with log.open("w") as out:
        server = subprocess.Popen([*command, "--admin-bind", "127.0.0.1:0"], stdout=out, stderr=subprocess.STDOUT)
    found = None
    end = time.monotonic() + 30
    while found is None and time.monotonic() < end and server.poll() is None:
        time.sleep(0.1)
        found = re.search(r"http://127\.0\.0\.1:\d+", log.read_text())
    assert found, log.read_text()
    client = ams.Client(found[0])
    while not client.is_ready() and time.monotonic() < end:
        time.sleep(0.1)
    yield found[0]
    # Asked twice, a server does not wait for its clients.
    server.terminate()
    time.sleep(0.2)
    server.terminate()
    server.wait(timeout=30)


def test_answers_are_the_models(shop: Shop, url: str) -> None:
    client = ams.Client(url + "/")
    page = shop.pages[0]
    user, items, context = page["user"], page["candidates"]["item"], page["context"]
    assert client.score_page("joint", page) == shop.model.score_page(page)
    assert client.score("joint", user, None, items, context, top_k=2) == shop.model.score(user, None, items, context, 2)
    assert client.score("joint", user, None, items, context, version=1) == client.score_page("joint", page)
    assert client.explain("joint", user, None, items, context) == shop.model.explain(user, None, items, context)
    assert client.similar("joint", items[0], top_k=3) == shop.model.similar(items[0], top_k=3)
    assert "joint" in str(client.models()) and client.card("joint")["version"] == 1


def test_answers_of_the_asynchronous_client(shop: Shop, url: str) -> None:
    client = ams.AsyncClient(url)
    page = shop.pages[0]
    user, items, context = page["user"], page["candidates"]["item"], page["context"]

    async def ask() -> None:
        pages = await asyncio.gather(*(client.score_page("joint", page) for page in shop.pages))
        assert pages == [shop.model.score_page(page) for page in shop.pages]
        assert await client.explain("joint", user, None, items, context) == shop.model.explain(user, None, items, context)
        assert (await client.score("joint", user, None, items, context)).items == pages[0].items
        assert await client.similar("joint", items[0]) == shop.model.similar(items[0])
        assert await client.is_ready() and "joint" in str(await client.models())
        assert (await client.card("joint"))["version"] == 1

    asyncio.run(ask())


def test_refusals(url: str) -> None:
    client = ams.Client(url)
    with pytest.raises(ams.ServerError) as error:
        client.score("nothing", candidates=["i1"])
    assert error.value.status == 404
    with pytest.raises(ams.ServerError) as error:
        client.score("joint", candidates=[])
    assert error.value.status == 400 and "expected 1 to 10000" in error.value.detail
    nobody = ams.Client("http://127.0.0.1:9", timeout=2)
    assert not nobody.is_ready()
    with pytest.raises(ams.ServerError) as error:
        nobody.models()
    assert error.value.status == 0 and "127.0.0.1:9" in str(error.value)
    with pytest.raises(ValueError, match="expected http://"):
        ams.Client("127.0.0.1:8600")
