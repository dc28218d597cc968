#!/usr/bin/env python3
"""The dashboard in a real browser: panel.py URL USER PASSWORD SERVER [FOLDER FOR PICTURES]

SERVER is a container with the demo server behind a running daemon; it is stopped and started again.
Ends with `N passed, 0 failed`, or with the first thing that is not so.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from chromium import Browser  # noqa: E402

PAGE_BYTES_MAX = 150 * 1024
passed = 0


def check(what, holds, found=None):
    global passed
    if not holds:
        raise AssertionError(f"{what}: {found}")
    passed += 1
    print(f"ok: {what}", flush=True)


def picture(browser, folder, name):
    if folder:
        browser.shot(os.path.join(folder, f"{name}.png"), full=True)


def overflow(browser):
    return browser.run("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def strangers(url):
    browser = Browser("admin", "a wrong guess")
    try:
        browser.goto(url)
        text = browser.run("document.body.innerText")
        check("a wrong password shows nothing", "Servers" not in text, text)
    finally:
        browser.close()


def state_of(server):
    return f"document.querySelector('#s-{server} .pill').textContent"


def overview(browser, url, server, folder):
    browser.size(1360, 860)
    browser.goto(url)
    check("the browser signs in", "MCP Orchestrator" in browser.run("document.title"))
    weight = sum(browser.bytes.values())
    check(f"the first look weighs {weight} bytes", weight < PAGE_BYTES_MAX, weight)
    browser.until("live", "document.querySelector('#live').textContent === 'live'")
    picture(browser, folder, "overview-light")
    browser.run("window.kept = 'the same page'; document.querySelector('input[name=q]').focus()")
    browser.key("Tab")
    check("the keyboard leads on", browser.run("document.activeElement.tagName") == "BUTTON")
    button = f"#s-{server} [data-act=stop]"
    browser.run(f"document.querySelector('{button}').click()")
    browser.until("it asks", "document.querySelector('dialog[open]')?.textContent.includes('Stop')")
    picture(browser, folder, "confirm")
    browser.key("Escape")
    browser.until("it was given up", "!document.querySelector('dialog')")
    check("nothing happened", browser.run(state_of(server)) == "converged")
    browser.run(f"document.querySelector('{button}').click()")
    browser.until("it asks again", "!!document.querySelector('dialog[open]')")
    browser.key("Enter")
    browser.until("it is stopped", f"{state_of(server)} === 'stopped'")
    check("live, without loading anew", browser.run("window.kept") == "the same page")
    picture(browser, folder, "stopped")
    browser.run(f"document.querySelector('#s-{server} [data-act=start]').click()")
    browser.until("it runs again", f"{state_of(server)} === 'converged'", 90)
    browser.until("it said so", "[...document.querySelectorAll('.toast')].some((t) => t.textContent.includes('done'))")
    check("start and stop from the page", True)


def one_server(browser, url, server, folder):
    browser.goto(f"{url}/servers/{server}")
    browser.until("its tools", "document.querySelectorAll('#tools details').length > 2")
    browser.run("""
      const echo = [...document.querySelectorAll('#tools details')].find((d) => d.querySelector('code').textContent === 'echo');
      echo.open = true;
      echo.querySelector('input').value = 'hello from the page';
      echo.querySelector('form').requestSubmit();
    """)
    browser.until("the answer", "[...document.querySelectorAll('#tools pre')].some((p) => p.textContent.startsWith('hello from the page'))")
    check("a tool is called from a form", True)
    settings = browser.run("document.querySelector('#settings').textContent")
    check("settings say where they come from", "mcp.config.json:" in settings, settings[:300])
    picture(browser, folder, "server-light")


def everywhere(browser, url, server, folder):
    pages = {"overview": "", "server": f"/servers/{server}", "balancer": "/balancer", "plan": "/plan", "tasks": "/tasks", "audit": "/audit"}
    for name, path in pages.items():
        browser.size(360, 740, mobile=True)
        browser.goto(url + path)
        check(f"{name} fits 360 px", overflow(browser) <= 0, overflow(browser))
        names = browser.run("[...document.querySelectorAll('button, a, input, select')].filter((n) => !(n.textContent.trim() || n.title || n.ariaLabel || n.labels?.length || n.type === 'hidden')).length")
        check(f"everything on {name} has a name", names == 0, names)
        picture(browser, folder, f"{name}-360")
        browser.size(1360, 860)
        browser.dark(True)
        browser.goto(url + path)
        picture(browser, folder, f"{name}-dark")
        browser.dark(False)
    browser.goto(url)
    light = browser.run("getComputedStyle(document.body).backgroundColor")
    browser.run("document.querySelector('#theme').click()")
    check("light and dark by hand", browser.run("getComputedStyle(document.body).backgroundColor") != light)


def without_script(browser, url, server):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    browser.goto(url)
    root = browser.call("DOM.getDocument", depth=-1)["root"]["nodeId"]
    row = browser.call("DOM.querySelector", nodeId=root, selector=f"#s-{server}")["nodeId"]
    check("without a script it can be read", row != 0)
    browser.call("Emulation.setScriptExecutionDisabled", value=False)


def main():
    url, user, password, server = sys.argv[1:5]
    folder = sys.argv[5] if len(sys.argv) > 5 else None
    if folder:
        os.makedirs(folder, exist_ok=True)
    strangers(url)
    browser = Browser(user, password)
    try:
        overview(browser, url, server, folder)
        one_server(browser, url, server, folder)
        everywhere(browser, url, server, folder)
        without_script(browser, url, server)
        check("the browser has nothing to complain of", not browser.errors, browser.errors)
    finally:
        browser.close()


try:
    main()
except Exception as error:  # noqa: BLE001
    print(f"failed: {error}")
    print(f"{passed} passed, 1 failed")
    sys.exit(1)
print(f"{passed} passed, 0 failed")
