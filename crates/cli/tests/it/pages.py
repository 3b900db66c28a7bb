"""Looks at the pages of a server in a real browser, and uses them as people do.

Usage: pages.py CHROMIUM PROFILE PICTURES open ADDRESS           everything, on a server that anybody may ask
       pages.py CHROMIUM PROFILE PICTURES token ADDRESS TOKEN    what a token changes
       pages.py CHROMIUM PROFILE PICTURES status ADDRESS MODEL DAY    the admin port's page; DAY of MODEL was refused

With `open` and `token`, the server has the models `tiny`, which sees pictures, and `plain`, which does not. Writes pictures of what it saw into the
folder PICTURES.
"""

import json
import sys
import urllib.request

from browser import Browser, Tab

program, profile, pictures, mode, address, *rest = sys.argv[1:]
READY = "document.querySelector('#main')?.ariaBusy === null && document.querySelector('#page')?.hidden === false"
WHOLE = """[...document.querySelectorAll('.board img, .history img')].every((it) => it.complete && it.naturalWidth > 0)
    && document.querySelectorAll('.board img').length > 0"""
ITEMS = "[...document.querySelectorAll('.column:{}-of-type .item')].map((it) => it.textContent)"
WIDTH = "[document.documentElement.scrollWidth, innerWidth]"


def post(path, body):
    request = urllib.request.Request(address + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request))


def get(path):
    return json.load(urllib.request.urlopen(address + path))


def at_peace(tab):
    """Nothing to complain of, and nobody else asked."""
    complaints, asked = tab.heard()
    assert complaints == [], complaints
    strangers = [it["url"] for it in asked if not it["url"].startswith((address, "blob:" + address))]
    assert strangers == [], strangers
    return asked


def fits(tab):
    wide, room = tab.js(WIDTH)
    assert wide <= room, f"{wide} pixels wide where there are {room}"


def items(tab, column):
    return tab.js(ITEMS.format(column))


def shown(tab, page):
    """The order a server gives, as the page has to show it."""
    return [post(f"/v1/models/{model}/score", page)["items"] for model in ("plain", "tiny")]


def demo(browser):
    samples = get("/v1/models/tiny")["samples"]
    tab = Tab(browser)
    tab.open(address + "/demo")
    tab.until(READY)
    tab.until(WHOLE)
    assert [items(tab, "first"), items(tab, "last")] == shown(tab, samples[0])
    assert tab.js("document.querySelectorAll('#view option').length") == len(samples)
    assert tab.js("[...document.querySelectorAll('.column h2')].map((it) => it.firstChild.data)") == ["plain", "tiny"]
    # Ranks that differ are told, and have a line between them.
    ranks = [{item: rank for rank, item in enumerate(order)} for order in (items(tab, "first"), items(tab, "last"))]
    moves = [ranks[0][item] - rank for item, rank in ranks[1].items()]
    expected = ["" if it == 0 else f"{'▲' if it > 0 else '▼'} {abs(it)}" for it in moves]
    assert tab.js("[...document.querySelectorAll('.column:last-of-type .move')].map((it) => it.textContent)") == expected
    assert tab.js("document.querySelectorAll('.links path[d]').length") == len(moves)
    # The best ad is explained from the start.
    tab.until("!document.querySelector('#why').hidden")
    tab.picture(f"{pictures}/demo.png")

    # Another person, chosen with the mouse's button.
    tab.click("#next")
    page = samples[1]
    tab.until(READY + f" && document.querySelector('#person-name').textContent === {json.dumps(page['user']['id'])}")
    tab.until(WHOLE)
    assert [items(tab, "first"), items(tab, "last")] == shown(tab, page)
    assert "view=2" in tab.js("location.hash")

    # Why, on touching an ad with the mouse.
    third = ".column:last-of-type .ad:nth-child(3)"
    item = items(tab, "last")[2]
    tab.hover(third)
    tab.until(f"document.querySelector('#why-title')?.textContent === 'Why {item}?'")
    explained(tab, page, item)
    # A click holds it.
    tab.click(third + " .pick")
    tab.hover(".column:first-of-type .ad:nth-child(1)")
    assert tab.js("document.querySelector('#why-title').textContent") == f"Why {item}?"
    assert any(it["url"].endswith("/explain") for it in at_peace(tab))

    # A bid: the order at once, and the server's after it.
    order = items(tab, "last")
    lowest = order[-1]
    tab.click(".column:last-of-type .ad:last-child input")
    tab.write("1000")
    tab.until(f"{ITEMS.format('last')}[0] === {json.dumps(lowest)} && {ITEMS.format('first')}[0] === {json.dumps(lowest)}")
    assert tab.js("document.activeElement.ariaLabel") == f"Bid for {lowest}", "the focus has gone"
    page["candidates"]["bid"] = [1000 if it == lowest else 1 for it in page["candidates"]["item"]]
    tab.until("performance.getEntriesByType('resource').filter((it) => it.name.endsWith('/score')).length >= 6")
    tab.until("!document.querySelector('#reset').hidden")
    assert [items(tab, "first"), items(tab, "last")] == shown(tab, page)
    bids = [json.loads(it["postData"])["candidates"]["bid"] for it in at_peace(tab) if it["url"].endswith("/score")]
    assert bids and all(it == page["candidates"]["bid"] for it in bids), bids
    # What is no bid changes nothing.
    tab.write("")
    assert tab.js("document.activeElement.ariaInvalid") == "true" and items(tab, "last")[0] == lowest
    tab.click("#reset")
    tab.until(f"JSON.stringify({ITEMS.format('last')}) === {json.dumps(json.dumps(order, separators=(',', ':')))}")
    assert tab.nameless() == [], tab.nameless()
    at_peace(tab)
    tab.close()


def explained(tab, page, item):
    """What the page says of an ad is what the server says."""
    place = page["candidates"]["item"].index(item)
    one = {**page, "candidates": {"item": [page["candidates"]["item"][place]]}}
    answer = post("/v1/models/tiny/explain", one)
    raises = dict(zip(answer["rows"], answer["candidates"][0]["raises"]))
    tab.until("document.querySelector('.history').matches('.explained')")
    said = tab.js("[...document.querySelectorAll('.history .raise')].map((it) => it.textContent)")
    assert len(said) == len(page["user"]["behaviors"]["item"]) == len(raises)
    times = page["user"]["behaviors"]["time"]
    newest = sorted(range(len(times)), key=lambda row: -times[row])
    for text, row in zip(said, newest):
        points = 100 * raises[row]
        assert (text == "") == (abs(points) < 0.05), (text, points)
        assert text == "" or abs(float(text.replace("−", "-")) - points) <= 0.5, (text, points)
    assert any(said), "no past click raises anything: a test without meaning"


def by_keyboard(browser):
    tab = Tab(browser, still=True)
    tab.open(address + "/demo")
    tab.until(READY)
    focus = "document.activeElement"
    tab.key("Tab")
    assert tab.js(f"{focus}.className") == "skip"
    tab.key("Enter")
    assert tab.js(f"{focus}.id") == "ads"
    tab.key("Tab")
    assert tab.js(f"{focus}.className") == "pick"
    assert tab.js(f"getComputedStyle({focus}).outlineStyle") == "solid", "no ring around what has the focus"
    first = items(tab, "first")
    for key, column, item in [("ArrowDown", 0, first[1]), ("ArrowRight", 1, first[1]), ("ArrowLeft", 0, first[1])]:
        tab.key(key)
        tab.until(f"document.querySelector('#why-title')?.textContent === 'Why {item}?'")
        assert tab.js(f"[...document.querySelectorAll('.column')].findIndex((it) => it.contains({focus}))") == column
    tab.until("document.querySelector('#say').textContent.includes('without the past')")
    tab.key("Enter")
    assert tab.js(f"{focus}.ariaPressed") == "true"
    tab.key("Tab")
    tab.write("1000")
    tab.until(f"{ITEMS.format('first')}[0] === {json.dumps(first[1])}")
    assert tab.js("document.getAnimations().length") == 0, "things move for somebody who wants them still"
    tab.key("Escape")
    assert tab.js("document.querySelector('#why').hidden")
    tab.key("Tab", shift=True)
    tab.until("!document.querySelector('#why').hidden")
    tab.js("document.querySelector('#why .close').focus()")
    tab.key("Enter")
    assert tab.js(f"document.querySelector('#why').hidden && {focus}.className") == "pick"
    # Another person, from the list.
    name = tab.js("document.querySelector('#person-name').textContent")
    tab.js("document.querySelector('#view').focus()")
    tab.key("ArrowDown")
    tab.until(READY + f" && document.querySelector('#person-name').textContent !== {json.dumps(name)}")
    at_peace(tab)
    tab.close()


def on_a_phone(browser):
    for dark in [False, True]:
        tab = Tab(browser, width=390, height=844, scale=2, touch=True, dark=dark)
        tab.open(address + "/demo")
        tab.until(READY)
        tab.until(WHOLE)
        fits(tab)
        name = "dark" if dark else "light"
        tab.picture(f"{pictures}/demo-phone-{name}.png", whole=False)
        tab.tap(".column:last-of-type .ad:nth-child(2) .pick")
        item = items(tab, "last")[1]
        tab.until(f"document.querySelector('#why-title')?.textContent === 'Why {item}?'")
        fits(tab)
        tab.picture(f"{pictures}/demo-phone-{name}-why.png", whole=False)
        tab.open(address + "/docs")
        tab.until("document.querySelector('#main').ariaBusy === null")
        fits(tab)
        tab.picture(f"{pictures}/docs-phone-{name}.png", whole=False)
        at_peace(tab)
        tab.close()
    tab = Tab(browser, dark=True)
    tab.open(address + "/demo")
    tab.until(READY)
    tab.until(WHOLE)
    dark = tab.js("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert max(dark) < 60, dark
    tab.picture(f"{pictures}/demo-dark.png")
    tab.close()


def when_things_go_wrong(browser):
    # A network that lets nothing through but what it should.
    gone = """const whole = fetch;
        window.gone = /plain\\/score/;
        window.fetch = (url, ...more) => (window.gone.test(url) ? Promise.reject(new TypeError("gone")) : whole(url, ...more));"""
    tab = Tab(browser)
    tab.say("Page.addScriptToEvaluateOnNewDocument", source=gone)
    tab.open(address + "/demo")
    tab.until("document.querySelector('.column:first-of-type .notice')")
    assert "does not answer" in tab.js("document.querySelector('.column:first-of-type .notice').textContent")
    tab.until(f"{ITEMS.format('last')}.length > 0")
    tab.picture(f"{pictures}/demo-refused.png")
    tab.js("window.gone = /v1/")
    tab.click(".column:first-of-type .notice button")
    tab.until("document.querySelectorAll('.column .notice').length === 2")
    tab.js("window.gone = /nothing/")
    tab.click(".column:first-of-type .notice button")
    tab.until(READY + " && document.querySelectorAll('.column:first-of-type .pick').length > 0")
    # What the server refuses is said in its words.
    tab.open(address + "/docs")
    tab.open(address + "/demo#model=tiny&baseline=&view=9999")
    tab.until(READY)
    assert tab.js("document.querySelectorAll('.column').length") == 1
    tab.js("window.gone = /v1/")
    tab.click("#next")
    tab.until("document.querySelector('.notice')")
    tab.js("window.gone = /nothing/")
    tab.click(".notice button")
    tab.until(READY)
    at_peace(tab)
    tab.close()


def with_nothing_to_show(browser):
    for what, answer, words in [
        ("v1/models", "[]", "No model yet"),
        ("v1/models/tiny", '{"model": "tiny", "version": 1, "samples": [], "spec": {}}', "No page view to show"),
    ]:
        empty = """const plain = fetch;
            window.fetch = (url, ...more) => (url === %s ? Promise.resolve(Response.json(%s)) : plain(url, ...more));"""
        tab = Tab(browser)
        tab.say("Page.addScriptToEvaluateOnNewDocument", source=empty % (json.dumps(what), answer))
        tab.open(address + "/demo#model=tiny")
        tab.until(f"document.querySelector('#notice h2')?.textContent === {json.dumps(words)}")
        tab.picture(f"{pictures}/demo-empty.png")
        at_peace(tab)
        tab.close()


def with_attention(browser):
    """What an answer with the weights of attentions is shown as, whatever networks this server has."""
    weights = """const plain = fetch;
        window.fetch = async (url, ...more) => {
            const response = await plain(url, ...more);
            if (!url.endsWith("/explain")) return response;
            const answer = await response.json();
            const weigh = (over, by) => ({ over, queries: ["image"], weights: answer.rows.map((row, at) => by - at) });
            answer.candidates[0].attention = [weigh("image", 0.25), weigh("ids", 2)];
            return Response.json(answer);
        };"""
    tab = Tab(browser)
    tab.say("Page.addScriptToEvaluateOnNewDocument", source=weights)
    tab.open(address + "/demo")
    tab.until(READY + " && document.querySelectorAll('.ways input').length === 3")
    tab.js("document.querySelector('.ways input').focus()")
    raises = "[...document.querySelectorAll('.history .raise')].slice(0, 2).map((it) => it.textContent).join(' ')"
    for shown in ["0.25 −0.75", "2.00 1.00"]:
        tab.key("ArrowDown")
        tab.until(f"{raises} === {json.dumps(shown)} && document.activeElement.checked")
    tab.picture(f"{pictures}/demo-attention.png", whole=False)
    # It holds for the next ad.
    tab.hover(".column:last-of-type .ad:nth-child(2)")
    tab.until(f"{raises} === '2.00 1.00' && document.querySelectorAll('.ways input')[2].checked")
    at_peace(tab)
    tab.close()


def docs(browser):
    described = get("/openapi.json")
    tab = Tab(browser)
    tab.open(address + "/docs")
    tab.until("document.querySelector('#main').ariaBusy === null")
    ids = tab.js("[...document.querySelectorAll('.operation')].map((it) => it.id)")
    paths = described["paths"]
    expected = [it["operationId"] for path, methods in paths.items() for it in methods.values()
                if not ("/versions/{version}" in path and path.replace("/versions/{version}", "") in paths)]
    assert sorted(ids) == sorted(expected), ids
    names = tab.js("[...document.querySelectorAll('.schema h3')].map((it) => it.textContent)")
    assert names == list(described["components"]["schemas"]), names
    for answers in tab.js("[...document.querySelectorAll('.operation')].map((it) => it.querySelectorAll('.status').length)"):
        assert answers > 0
    tab.picture(f"{pictures}/docs.png", whole=False)

    # Tried as they are offered, they work.
    page = get("/v1/models/plain")["samples"][0]
    for operation, status in [("score", "200"), ("explain", "200"), ("prerank", "409"), ("models", "200"), ("live", "200")]:
        tab.click(f"#{operation} .trial summary")
        tab.click(f"#{operation} .try button.main")
        tab.until(f"document.querySelector('#{operation} .outcome .status')")
        assert tab.js(f"document.querySelector('#{operation} .outcome .status').textContent") == status, operation
    answer = json.loads(tab.js("document.querySelector('#score .outcome pre').textContent"))
    assert answer == post("/v1/models/plain/score", page), answer
    complaints, asked = tab.heard()
    # A refusal is one, and the browser says so.
    assert all("409" in it for it in complaints), complaints
    assert all(it["url"].startswith(address) for it in asked), asked
    tab.js("document.querySelector('#score').scrollIntoView()")
    tab.picture(f"{pictures}/docs-try.png", whole=False)
    # A version may be given.
    tab.js("document.querySelector('#score-version').focus()")
    tab.write("7")
    tab.click("#score .try button.main")
    tab.until("document.querySelector('#score .outcome .status').textContent === '404'")
    assert tab.nameless() == [], tab.nameless()
    # It leads to the demo.
    tab.click("#demo")
    tab.until(READY)
    tab.close()


def with_a_token(browser, token):
    tab = Tab(browser)
    tab.open(address + "/demo")
    for wrong in [True, False]:
        tab.until("document.activeElement?.id === 'token'")
        if wrong:
            tab.picture(f"{pictures}/demo-token.png")
        tab.write("wrong-token-0123456789" if wrong else token)
        tab.key("Enter")
        if wrong:
            tab.until("document.querySelector('dialog [role=alert]')?.textContent.includes('not valid')")
    tab.until(READY)
    tab.until(WHOLE)
    assert tab.js("[...document.querySelectorAll('.board img')].every((it) => it.src.startsWith('blob:'))")
    kept = tab.js("[document.cookie, JSON.stringify(localStorage), JSON.stringify(sessionStorage), location.href].join()")
    assert token not in kept and kept.startswith(",{},{},"), kept
    complaints, asked = tab.heard()
    # The first questions, without it.
    assert all("401" in it for it in complaints), complaints
    assert all(it["url"].startswith((address, "blob:" + address)) for it in asked), asked
    assert all(token not in it["url"] for it in asked)
    tab.close()


def status(browser, model, day):
    """Every version with its state, what somebody should look at, on a desk and on a phone."""
    told = next(it for it in get("/admin/overview")["models"] if it["model"] == model)
    for how in [{}, {"dark": True}, {"width": 390, "height": 844, "scale": 2, "touch": True}]:
        tab = Tab(browser, **how)
        tab.open(address + "/status")
        tab.until("document.querySelector('#main')?.ariaBusy === 'false'")
        assert tab.js("document.querySelector('#about').textContent") == "1 of 1 models serve."
        assert tab.js("[...document.querySelectorAll('h2')].map((it) => it.textContent)") == [model]
        rows = tab.js("[...document.querySelectorAll('tbody tr')].map((row) => [...row.children].map((it) => it.textContent))")
        assert [[int(row[0]), row[1], row[2]] for row in rows] == [
            [it["version"], it["state"], it["day"] or "–"] for it in told["versions"]], rows
        for row, version in zip(rows, told["versions"]):
            gauc = next((it for it in version["compared"] if it["metric"] == "GAUC" and "gain" in it), None)
            assert row[4] == "–" if gauc is None else row[4].startswith(f"{gauc['gain']:+.4f} ["), (row, gauc)
            by = version["withdrawn"]
            assert by is None or row[8].startswith(f"taken back by {by['by']}"), row
            assert version["problem"] is None or row[8] == version["problem"], row
        serves = tab.js("document.querySelector('.model p').textContent")
        assert serves.startswith(f"Version {told['serving']} serves, with data of ") and day in serves, serves
        first = tab.js("document.querySelector('.notice').textContent")
        assert first.startswith(f"The last day, {day}, was refused: "), first
        assert tab.js("document.querySelector('.notice').className") == "notice"
        fits(tab)
        assert tab.nameless() == [], tab.nameless()
        at_peace(tab)
        tab.picture(f"{pictures}/status{''.join('-' + key for key in how if key in ('dark', 'touch'))}.png")
        tab.close()
    # Looked at again, with the keyboard alone; what the server refuses is said.
    tab = Tab(browser, still=True)
    tab.open(address + "/status")
    tab.until("document.querySelector('#main')?.ariaBusy === 'false'")
    tab.js("window.before = document.querySelector('.model')")
    tab.key("Tab")
    assert tab.js("document.activeElement.className") == "skip"
    tab.key("Tab")
    assert tab.js("document.activeElement.id") == "again"
    tab.key("Enter")
    tab.until("document.querySelector('.model') && document.querySelector('.model') !== window.before")
    tab.js("window.fetch = () => Promise.reject(new TypeError('gone'))")
    tab.click("#again")
    tab.until("document.querySelector('[role=alert]')")
    assert "does not answer" in tab.js("document.querySelector('[role=alert]').textContent")
    at_peace(tab)
    tab.close()


browser = Browser(program, profile)
try:
    if mode == "token":
        with_a_token(browser, *rest)
    elif mode == "status":
        status(browser, *rest)
    else:
        for look in [demo, by_keyboard, on_a_phone, when_things_go_wrong, with_nothing_to_show, with_attention, docs]:
            look(browser)
finally:
    browser.close()
