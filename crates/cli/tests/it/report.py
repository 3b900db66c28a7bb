"""Opens reports in a real browser: nothing to complain of, nobody asked, as wide as a phone.

Usage: report.py CHROMIUM PROFILE PICTURES REPORT..

Writes pictures of what it saw into the folder PICTURES.
"""

import pathlib
import sys

from browser import Browser, Tab

program, profile, pictures, *reports = sys.argv[1:]
LOOKS = {"light": {}, "dark": {"dark": True}, "phone": {"width": 390, "height": 844, "touch": True}}


def look(browser, report, name, how):
    tab = Tab(browser, **how)
    address = pathlib.Path(report).resolve().as_uri()
    tab.open(address)
    complaints, asked = tab.heard()
    assert complaints == [], (report, complaints)
    strangers = [it["url"][:99] for it in asked if it["url"] != address and not it["url"].startswith("data:")]
    assert strangers == [], (report, strangers)
    wide, room = tab.js("[document.documentElement.scrollWidth, innerWidth]")
    assert wide <= room, f"{report}: {wide} pixels wide where there are {room}"
    broken = tab.js("[...document.images].filter((it) => !it.complete || it.naturalWidth === 0).length")
    assert broken == 0, f"{report}: {broken} pictures cannot be seen"
    # Texts of users are texts, and a report has no script.
    assert tab.js("document.querySelectorAll('script, iframe, b, i').length") == 0, report
    # Letters of a chart are as large as they are drawn, or larger.
    small = tab.js("""[...document.querySelectorAll('svg text')].filter((it) =>
        it.ownerSVGElement.getBoundingClientRect().width / it.ownerSVGElement.viewBox.baseVal.width
        * parseFloat(it.getAttribute('font-size')) < 10.5).map((it) => it.textContent)""")
    assert small == [], (report, small)
    assert tab.nameless() == [], (report, tab.nameless())
    tab.picture(f"{pictures}/report-{pathlib.Path(report).stem}-{name}.png")
    tab.close()


browser = Browser(program, profile)
try:
    for report in reports:
        for name, how in LOOKS.items():
            look(browser, report, name, how)
finally:
    browser.close()
