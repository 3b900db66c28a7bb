"""Pages of other hosts, in a real browser, try to change what a server serves.

Usage: foreign.py CHROMIUM PROFILE ADDRESS ADMIN

The server serves version 2 of the model `tiny`, and has version 1 too. Nothing that a page can make a browser send may change
that: from another host, from the server's other port, and from a name that somebody lets lead to the admin port.
"""

import http.server
import json
import sys
import threading
import time
import urllib.request

from browser import Browser, Tab

program, profile, address, admin = sys.argv[1:]
ORDERS = ["tiny/rollback", "tiny/unload", "tiny/versions/1/activate", "tiny/versions/1/canary?percent=50"]
REBOUND = "rebound.example"

# Everything a page has to send with: what it hears is not the point.
SEND = """(async (url) => {
    const quietly = async (send) => { try { await send(); } catch (error) { /* refused by the browser itself */ } };
    const ways = [];
    for (const mode of ["no-cors", "cors"]) {
        ways.push({method: "POST", mode});
        for (const kind of ["text/plain", "application/x-www-form-urlencoded", "application/json"]) {
            ways.push({method: "POST", mode, body: "{}", headers: {"Content-Type": kind}});
        }
        ways.push({method: "POST", mode, headers: {"X-Ams-Admin": "1"}});
        ways.push({method: "POST", mode, credentials: "include", referrerPolicy: "no-referrer"});
    }
    for (const way of ways) { await quietly(() => fetch(url, {...way, signal: AbortSignal.timeout(5000)})); }
    await quietly(() => navigator.sendBeacon(url, "{}"));
    return ways.length;
})"""


def state():
    model = json.load(urllib.request.urlopen(admin + "/admin/models"))[0]
    return {key: model[key] for key in ["live", "canary", "pinned", "withdrawn", "unloaded", "deltas"]}


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>elsewhere</title><body>")

    def log_message(self, *_):
        pass


# A form leads the whole page there.
LEAVE = """((url) => {
    const form = document.createElement("form");
    Object.assign(form, {method: "post", action: url, enctype: "text/plain"});
    document.body.append(form);
    setTimeout(() => form.submit());
})"""


def sent(tab, target):
    for order in ORDERS:
        assert tab.js(f"{SEND}({json.dumps(f'{target}/admin/models/{order}')})") == 12
    change = json.dumps(f"{target}/admin/models/tiny/changes")
    body = json.dumps(json.dumps({"remove_items": ["1"]}))
    for kind in ["text/plain", "application/json"]:
        tab.js(f"fetch({change}, {{method: 'POST', mode: 'no-cors', body: {body}, headers: {{'Content-Type': '{kind}'}}, signal: AbortSignal.timeout(5000)}})"
               ".catch(() => 0).then(() => 1)")


elsewhere = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
threading.Thread(target=elsewhere.serve_forever, daemon=True).start()
before = state()
assert before["live"] == 2, before
# New browsers let no page talk to this host unasked; others do, and it is the server that is tried here.
browser = Browser(program, profile, f"--host-resolver-rules=MAP {REBOUND} 127.0.0.1",
                  "--disable-features=LocalNetworkAccessChecks")
try:
    port = admin.rsplit(":", 1)[1]
    for page, target in [
        (f"http://localhost:{elsewhere.server_port}/", admin),
        (address + "/docs", admin),
        (f"http://{REBOUND}:{port}/health/live", f"http://{REBOUND}:{port}"),
    ]:
        tab = Tab(browser)
        tab.open(page)
        sent(tab, target)
        tab.js(f"{LEAVE}({json.dumps(f'{target}/admin/models/{ORDERS[0]}')})")
        # The answer is no page, so that this one stays, and nothing tells when it came.
        time.sleep(1)
        tab.close()
        assert state() == before, (page, state())
finally:
    browser.close()
# What is not a page may.
request = urllib.request.Request(admin + "/admin/models/tiny/rollback", b"", {"X-Ams-Admin": "1"})
assert json.load(urllib.request.urlopen(request))[0]["live"] == 1
