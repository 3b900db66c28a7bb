"""Drives a headless Chromium over its debugging pipe. Needs Python alone.

The pipe is the file descriptors 3 and 4 of the browser; a message is JSON and a zero byte, see
https://chromedevtools.github.io/devtools-protocol/.
"""

import base64
import json
import os
import select
import subprocess
import time

PATIENCE = 30


class Browser:
    """A Chromium with a profile of its own in the folder `profile`."""

    def __init__(self, program, profile, *more):
        # So that 3 and 4 are nobody else's.
        reserved = [os.open(os.devnull, os.O_RDONLY) for _ in range(8)]
        theirs, self.to = os.pipe()
        self.of, ours = os.pipe()
        os.dup2(theirs, 3)
        os.dup2(ours, 4)
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                 "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
                 f"--user-data-dir={profile}", "--remote-debugging-pipe", *more, "about:blank"]
        self.process = subprocess.Popen([program, *flags], pass_fds=(3, 4), stderr=subprocess.DEVNULL)
        for descriptor in {3, 4, theirs, ours, *reserved}:
            os.close(descriptor)
        self.number, self.buffer, self.events = 0, b"", []

    def say(self, method, session=None, **params):
        """Asks for something; the result."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.to, data):]
        while True:
            message = self.hear(PATIENCE)
            if message is None:
                raise TimeoutError(f"{method}: no answer")
            if message.get("id") != self.number:
                self.events.append(message)
            elif "error" in message:
                raise RuntimeError(f"{method}: {message['error']}")
            else:
                return message["result"]

    def hear(self, seconds):
        """The next message, if one comes in time."""
        end = time.monotonic() + seconds
        while b"\0" not in self.buffer:
            left = end - time.monotonic()
            if left < 0 or not select.select([self.of], [], [], left)[0]:
                return None
            read = os.read(self.of, 1 << 16)
            if not read:
                raise EOFError("the browser has ended")
            self.buffer += read
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def close(self):
        try:
            self.say("Browser.close")
            self.process.wait(PATIENCE)
        except Exception:
            self.process.kill()
            self.process.wait()


class Tab:
    """One page, what it complained of, and whom it asked."""

    def __init__(self, browser, width=1440, height=1000, scale=1, touch=False, dark=False, still=False):
        self.browser = browser
        target = browser.say("Target.createTarget", url="about:blank", newWindow=True)["targetId"]
        self.target = target
        self.session = browser.say("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ["Page", "Runtime", "Log", "Network"]:
            self.say(f"{domain}.enable")
        self.say("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=touch)
        self.say("Emulation.setTouchEmulationEnabled", enabled=touch)
        self.say("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if still else "no-preference"}])

    def say(self, method, **params):
        return self.browser.say(method, self.session, **params)

    def open(self, url):
        self.say("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def js(self, expression):
        """The value of an expression, awaited."""
        said = self.say("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in said:
            raise RuntimeError(f"{expression}: {said['exceptionDetails']['exception'].get('description')}")
        return said["result"].get("value")

    def until(self, expression):
        """Waits for an expression to be true."""
        end = time.monotonic() + PATIENCE
        while not self.is_so(expression):
            assert time.monotonic() < end, f"never: {expression}"
            time.sleep(0.02)

    def is_so(self, expression):
        try:
            return self.js(f"Boolean({expression})")
        except RuntimeError as error:
            # Between one page and the next there is none to ask.
            if "navigated or closed" in str(error) or "context was destroyed" in str(error) or "Cannot find context" in str(error):
                return False
            raise

    def place(self, selector):
        """The middle of an element, which is scrolled to."""
        return self.js(f"""(() => {{
            const node = document.querySelector({json.dumps(selector)});
            node.scrollIntoView({{block: "nearest"}});
            const {{x, y, width, height}} = node.getBoundingClientRect();
            return [x + width / 2, y + height / 2];
        }})()""")

    def mouse(self, kind, x, y, **more):
        self.say("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def hover(self, selector):
        x, y = self.place(selector)
        self.mouse("mouseMoved", x, y)

    def click(self, selector):
        x, y = self.place(selector)
        self.mouse("mouseMoved", x, y)
        for kind in ["mousePressed", "mouseReleased"]:
            self.mouse(kind, x, y, button="left", clickCount=1)

    def tap(self, selector):
        x, y = self.place(selector)
        self.say("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
        self.say("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def key(self, key, code=0, shift=False):
        text = {"Enter": "\r"}.get(key, "")
        which = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
        more = {"windowsVirtualKeyCode": which.get(key, code), "modifiers": 8 if shift else 0}
        self.say("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", key=key, code=key, text=text, **more)
        self.say("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, **more)

    def write(self, text):
        """Types into what has the focus, instead of what is there."""
        self.js("document.activeElement.select()")
        self.say("Input.insertText", text=text)

    def picture(self, path, whole=True):
        # Without waiting for things to come to rest, they would be caught in between.
        self.js("Promise.all(document.getAnimations().filter((it) => it.effect.getTiming().iterations < 9).map((it) => it.finished))")
        said = self.say("Page.captureScreenshot", captureBeyondViewport=whole)
        with open(path, "wb") as file:
            file.write(base64.b64decode(said["data"]))

    def heard(self):
        """What came since this was last asked: complaints, and addresses that were asked."""
        self.js("1")
        complaints, asked, rest = [], [], []
        for event in self.browser.events:
            if event.get("sessionId") != self.session:
                rest.append(event)
                continue
            params = event["params"]
            match event["method"]:
                case "Runtime.exceptionThrown":
                    complaints.append(params["exceptionDetails"]["exception"].get("description"))
                case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                    complaints.append(" ".join(str(it.get("value", it.get("description"))) for it in params["args"]))
                case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                    complaints.append(params["entry"]["text"] + " " + params["entry"].get("url", ""))
                case "Network.requestWillBeSent":
                    asked.append(params["request"])
        self.browser.events = rest
        return complaints, asked

    def nameless(self):
        """What can have the focus or is a picture, and has no name for those who do not see."""
        nodes = self.say("Accessibility.getFullAXTree")["nodes"]
        focusable = lambda node: any(it["name"] == "focusable" for it in node.get("properties", []))
        named = lambda node: node.get("name", {}).get("value", "").strip()
        return [node["role"]["value"] for node in nodes
                if not node["ignored"] and (focusable(node) or node["role"]["value"] == "image")
                and node["role"]["value"] not in ("RootWebArea", "generic") and not named(node)]

    def close(self):
        self.browser.say("Target.closeTarget", targetId=self.target)
