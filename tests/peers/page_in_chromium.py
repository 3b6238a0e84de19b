#!/usr/bin/env python3
"""Opens the page of `ch07_finetuning serve` in headless Chromium, talks to the model, and takes pictures.

    python page_in_chromium.py [--url http://127.0.0.1:8080] [--out FOLDER] [--say TEXT]

Writes light.png, dark.png, talk.png, text.png and phone.png into FOLDER, for a person to look at, and fails where the
page reports an error, loads anything from elsewhere, or shows no answer. Needs Debian's `chromium` and the PyPI package
`websockets` (Chromium is steered over its DevTools protocol). By hand; not part of the tests.
"""
import argparse
import asyncio
import base64
import json
import pathlib
import subprocess
import tempfile
import urllib.request

import websockets


class Page:
    def __init__(self, socket):
        self.socket, self.id, self.problems, self.requests = socket, 0, [], []

    async def call(self, method, **params):
        self.id += 1
        await self.socket.send(json.dumps({"id": self.id, "method": method, "params": params}))
        while True:
            message = json.loads(await self.socket.recv())
            if message.get("id") == self.id:
                if "error" in message:
                    raise SystemExit(f"{method}: {message['error']}")
                return message["result"]
            self.note(message)

    def note(self, message):
        method, params = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.problems.append(params["exceptionDetails"].get("exception", {}).get("description", "an exception"))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.problems.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    async def run(self, script):
        result = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result:
            raise SystemExit(f"{script}: {result['exceptionDetails']}")
        return result["result"].get("value")

    async def until(self, condition, seconds=60):
        for _ in range(seconds * 20):
            if await self.run(condition):
                return
            await asyncio.sleep(0.05)
        raise SystemExit(f"waited in vain for {condition}")

    async def size(self, width, height):
        await self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    async def dark(self, dark):
        await self.call("Emulation.setEmulatedMedia",
                        features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        await asyncio.sleep(0.3)

    async def picture(self, path):
        data = (await self.call("Page.captureScreenshot", format="png"))["data"]
        path.write_bytes(base64.b64decode(data))

    async def say(self, text):
        await self.run("$('input').focus()")
        await self.call("Input.insertText", text=text)
        for kind in ("keyDown", "keyUp"):
            await self.call("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13,
                            text="\r" if kind == "keyDown" else "")


async def visit(address, args, out):
    async with websockets.connect(address, max_size=None) as socket:
        page = Page(socket)
        for domain in ("Page", "Runtime", "Log", "Network"):
            await page.call(domain + ".enable")
        await page.size(1000, 760)
        await page.dark(False)
        await page.call("Page.navigate", url=args.url)
        await page.until("document.readyState === 'complete' && document.getElementById('model').textContent !== ''")
        await page.picture(out / "light.png")
        await page.dark(True)
        await page.picture(out / "dark.png")
        await page.dark(False)

        for text in args.say:
            count = await page.run("document.querySelectorAll('.message.assistant').length")
            await page.say(text)
            await page.until(f"document.querySelectorAll('.message.assistant').length > {count}")
            await page.until("!document.querySelector('.busy') && !running")
        answer = await page.run("[...document.querySelectorAll('.message.assistant')].at(-1).textContent")
        print("answer:", repr(answer))
        if not answer:
            raise SystemExit("the model said nothing: " + str(await page.run("document.body.innerText")))
        await page.picture(out / "talk.png")

        await page.run("$('mode').value = 'text'; $('mode').onchange()")
        await page.say("Once upon a time, a shy fox")
        await page.until("!!document.querySelector('.message.assistant')")
        await page.until("!document.querySelector('.busy') && !running")
        await page.picture(out / "text.png")
        await page.size(390, 720)
        await page.dark(True)
        await page.picture(out / "phone.png")
        wide = await page.run("document.documentElement.scrollWidth > innerWidth")
        elsewhere = [u for u in page.requests if not u.startswith((args.url, "data:"))]
        if page.problems or wide or elsewhere:
            raise SystemExit(f"problems: {page.problems}, too wide: {wide}, from elsewhere: {elsewhere}")
        print("no errors, nothing from elsewhere; pictures in", out)


async def start(args, out):
    with tempfile.TemporaryDirectory() as profile:
        browser = subprocess.Popen(
            ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0",
             f"--user-data-dir={profile}", "about:blank"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            port_file = pathlib.Path(profile) / "DevToolsActivePort"
            for _ in range(600):
                if port_file.exists() and len(port_file.read_text().split()) == 2:
                    break
                await asyncio.sleep(0.1)
            port = port_file.read_text().split()[0]
            pages = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json"))
            await visit(next(p for p in pages if p["type"] == "page")["webSocketDebuggerUrl"], args, out)
        finally:
            browser.terminate()
            browser.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--out", default="page")
    parser.add_argument("--say", action="append")
    args = parser.parse_args()
    args.say = args.say or ["Hello! Who are you?", "Tell me a story."]
    out = pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    asyncio.run(start(args, out))


if __name__ == "__main__":
    main()
