#!/usr/bin/env python3
"""The dashboard in a real browser: panel.py URL USER PASSWORD SERVER [FOLDER FOR PICTURES]

SERVER is a container (or a local process with the tool `nasty_crash`) with the demo server's tools
behind a running daemon whose files may be written; beside it is the server `forms` (forms.py). SERVER is
stopped, started and killed, and a server of another name is added, edited and deleted. The engine is
at $DOCKER_HOST.
Ends with `N passed, 0 failed`, or with the first thing that is not so and a picture of it.
"""

import http.client
import json
import os
import shlex
import socket
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from access import everything, tree  # noqa: E402
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
    browser = Browser("admin", "a wrong guess", guesses=1)
    try:
        browser.goto(url)
        text = browser.run("document.body.innerText")
        check("a wrong password shows nothing", "Servers" not in text, text)
    finally:
        browser.close()


class Engine(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://"))


def measured(server):
    """SERVER where its engine counts what containers use; one without controllers does not."""
    engine = Engine("engine")
    engine.request("GET", "/info")
    info = json.load(engine.getresponse())
    return server if info["PidsLimit"] and info["MemoryLimit"] else "local"


def kill(browser, server):
    """Ends what SERVER runs in, behind the daemon's back."""
    view = api(browser, f"/api/v1/servers/{server}")
    if view["containerId"]:
        engine = Engine("engine")
        engine.request("POST", f"/containers/{view['containerId']}/kill")
        status = engine.getresponse().status
        check("the container is killed", status == 204, status)
    else:
        api(browser, f"/api/v1/servers/{server}/call", {"tool": "nasty_crash", "arguments": {"code": 3}})


def api(browser, path, body=None):
    """Asks the API as the page does."""
    options = "" if body is None else f", method: 'POST', body: {json.dumps(json.dumps(body))}"
    headers = "'X-MCP-Orchestrator': '1', 'Content-Type': 'application/json'"
    return browser.run(f"fetch(location.origin + '{path}', {{headers: {{{headers}}}{options}}}).then((a) => a.json())")


def state_of(server):
    return f"document.querySelector('#s-{server} .pill')?.textContent"


def overview(browser, url, server, folder):
    browser.size(1360, 860)
    signed_in = "document.title.includes('MCP Orchestrator')"
    # The wrong guess of before has to be waited for.
    for _ in range(30):
        browser.goto(url)
        if browser.run(signed_in):
            break
        time.sleep(2)
    check("the browser signs in", browser.run(signed_in), browser.run("document.body.innerText"))
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


def asked_first(browser, act, question):
    """Clicks a button of the host: it asks, one may say no, and then it is done."""
    button = f"document.querySelector('#summary [data-act={act}]')"
    browser.run(f"{button}.click()")
    browser.until("it asks", f"document.querySelector('dialog[open]')?.textContent.includes('{question}')")
    browser.key("Escape")
    browser.until("it was given up", "!document.querySelector('dialog')")
    browser.run(f"{button}.click()")
    browser.until("it asks again", "!!document.querySelector('dialog[open]')")
    browser.key("Enter")


def of_the_host(browser, url, server, folder):
    """Out of the load balancer and back, left alone and not: shown as it is, without loading anew."""
    browser.goto(url)
    browser.until("live", "document.querySelector('#live').textContent === 'live'")
    browser.run("window.kept = 'the same page'")
    ready = "fetch(location.origin + '/readyz').then((a) => a.status)"
    check("the host is not drained", not browser.run("!!document.querySelector('#drained')"))
    asked_first(browser, "drain", "Drain this host?")
    browser.until("it is drained", "document.querySelector('#drained')?.textContent.includes('Drained by admin')")
    said = browser.run("document.querySelector('#drained').textContent")
    check("it says since when, and what of it is so without a load balancer", "ago" in said and "nothing of this host" in said, said)
    check("/readyz says so", browser.run(ready) == 503, browser.run(ready))
    check("its servers run on", browser.run(state_of(server)) == "converged", browser.run(state_of(server)))
    drained = api(browser, "/api/v1/panel/health")["drained"]
    check("the API says the same", drained and drained["by"] == "admin" and drained["waits"] == 0, drained)
    picture(browser, folder, "drained")
    browser.run("document.querySelector('#summary [data-act=undrain]').click()")
    browser.until("it is back", "!document.querySelector('#drained') && !!document.querySelector('#summary [data-act=drain]')")
    asked_first(browser, "pause", "Pause all servers?")
    browser.until("all is paused", f"!!document.querySelector('#paused') && document.querySelector('#s-{server}').textContent.includes('paused')")
    picture(browser, folder, "paused")
    browser.run("document.querySelector('#summary [data-act=resume]').click()")
    browser.until("it is resumed", f"!document.querySelector('#paused') && !document.querySelector('#s-{server} .tag.held')")
    check("live, without loading anew", browser.run("window.kept") == "the same page")


def figures(browser, url, server, folder):
    browser.goto(url)
    row = f"document.querySelector('#s-{server}')"
    browser.until("its memory is measured", f"/[KMG]iB/.test({row}?.querySelector('[data-l=memory]')?.textContent)")
    browser.until("its processor time is measured", f"{row}?.querySelector('[data-l=CPU]')?.textContent.includes('%')")
    host = browser.run("document.querySelector('.tile.host')?.textContent")
    check("host facts are shown", host and "CPU" in host and "RAM" in host, host)
    now = api(browser, f"/api/v1/servers/{server}")["usage"]
    check("the API has the same figures", now["memoryBytes"] > 0 and now["cpuPercent"] is not None, now)


def history(browser, url, server, folder):
    # One that was stopped when the minute was measured has nothing to show for it.
    def measured():
        return any((point["memoryBytes"] or 0) > 0 for point in api(browser, path)["points"])

    path = f"/api/v1/servers/{server}/history?hours=1"
    end = time.monotonic() + 200
    while not measured() and time.monotonic() < end:
        time.sleep(2)
    check("the API has the points", measured(), api(browser, path))
    browser.goto(f"{url}/servers/{server}?hours=1")
    browser.until("a history", "document.querySelectorAll('#history .chart').length === 4", 150)
    words = browser.run("document.querySelector('#history .chart svg')?.getAttribute('aria-label') ?? ''")
    check("charts say in words what they show", "least" in words and "newest" in words, words)
    # By keyboard: the newest value, and the one before.
    svg = "document.querySelector('#history .chart svg')"
    browser.run(f"{svg}.focus()")
    browser.key("End")
    said = "document.querySelector('#history .chart figcaption .num.read')?.textContent"
    browser.until("the value is read out", f"/·/.test({said} ?? '')")
    check("the keyboard reads values", browser.run(f"!!{svg}.querySelector('.cursor')"))
    picture(browser, folder, "history")
    browser.run(f"{svg}.blur()")
    check("and leaves no mark", not browser.run(f"!!{svg}.querySelector('.cursor')"))
    browser.run("document.querySelector('#values summary').click()")
    rows = browser.run("document.querySelectorAll('#values tbody tr').length")
    check("the same values stand in a table", 0 < rows <= 24, rows)


def task(browser, url, server, folder):
    """What was asked for, what became of it, and what was done for it."""
    newest = api(browser, "/api/v1/tasks?limit=1")[0]["id"]
    browser.goto(f"{url}/tasks")
    browser.until("the task", f"!!document.querySelector('#t-{newest} a')")
    browser.run(f"document.querySelector('#t-{newest} a').click()")
    browser.until("its page", f"location.pathname.endsWith('/tasks/{newest}') && !!document.querySelector('#became')")
    became = browser.run("document.querySelector('#became').textContent")
    check("a task says what became of its server", server in became and "ok" in became, became)
    browser.until("and what was done", "document.querySelectorAll('#done tbody tr').length > 0")
    did = browser.run("document.querySelector('#done').textContent")
    check("and what was done for it", server in did, did)
    picture(browser, folder, "task")


def death(browser, url, server, folder):
    browser.goto(url)
    browser.until("live", "document.querySelector('#live').textContent === 'live'")
    browser.run(f"""
      window.kept = 'the same page';
      window.states = new Set();
      new MutationObserver(() => window.states.add(document.querySelector('#s-{server}')?.textContent))
        .observe(document.querySelector('#servers'), {{ childList: true, subtree: true, characterData: true }});
    """)
    kill(browser, server)
    seen = f"[...window.states].some((text) => text && !/converged[^]*healthy/.test(text))"
    browser.until("the page shows that it died", seen)
    browser.until("and that it is back", f"{state_of(server)} === 'converged' && document.querySelector('#s-{server}').textContent.includes('healthy')", 90)
    check("a death shows live, without loading anew", browser.run("window.kept") == "the same page")


def set_value(browser, selector, value):
    browser.run(f"""(() => {{
      const node = document.querySelector({json.dumps(selector)});
      node.value = {json.dumps(value)};
      node.dispatchEvent(new Event('input', {{ bubbles: true }}));
      node.dispatchEvent(new Event('change', {{ bubbles: true }}));
    }})()""")


def labelled(text):
    """The field with this label."""
    return f"[...document.querySelectorAll('#edit label')].find((l) => l.textContent.replace(' *', '') === {json.dumps(text)})?.control"


def fill(browser, label, value):
    browser.until(f"the field {label}", f"!!({labelled(label)})")
    browser.run(f"""(() => {{
      const node = {labelled(label)};
      node.value = {json.dumps(value)};
      node.dispatchEvent(new Event('input', {{ bubbles: true }}));
      node.dispatchEvent(new Event('change', {{ bubbles: true }}));
    }})()""")


def preview(browser):
    return browser.run("document.querySelector('#preview').innerText")


SAVE = "[...document.querySelectorAll('#edit button')].find((b) => b.textContent === 'Save')"


def editing(browser, url, server, folder):
    name = "panel-test"
    entry = api(browser, f"/api/v1/servers/{server}/entry")["entry"]
    line = shlex.join([entry["command"], *entry["args"], "--no-such-flag"])
    # A server is added: nothing is written before what changes was shown.
    browser.goto(f"{url}/add/server")
    fill(browser, "Name", name)
    fill(browser, "Command line", line)
    fill(browser, "Run it", "false")
    browser.until("it shows what would change", f"!({SAVE}).disabled && !!document.querySelector('#preview .udiff')")
    text = preview(browser)
    check("the difference is shown before it is saved", f'"{name}"' in text and "no-such-flag" in text, text)
    check("and nothing was written", api(browser, f"/api/v1/servers/{name}").get("code") == "MCPO-H002")
    picture(browser, folder, "add-server")
    browser.run(f"({SAVE}).click()")
    browser.until("one is back at the servers", "location.pathname.endsWith('/monitor') || !!document.querySelector('#servers')")
    browser.until("the new server is there", f"{state_of(name)} === 'stopped'")
    check("a server is added from a form", True)
    # It is edited; what was not changed stays.
    browser.goto(f"{url}/servers/{name}/edit")
    fill(browser, "Description", "made by a test")
    browser.until("it shows what would change", f"!({SAVE}).disabled && !!document.querySelector('#preview .udiff')")
    text = preview(browser)
    check("only that changes", "made by a test" in text and not [row for row in text.splitlines() if row.startswith("-") and "command" in row], text)
    # What is wrong is said where one looks, and cannot be saved.
    fill(browser, "Command line", "docker run --no-such-option mcp/example:latest")
    browser.until("what is wrong is said", "/no-such-option/.test(document.querySelector('#preview').innerText)")
    check("and cannot be saved", browser.run(f"({SAVE}).disabled"))
    picture(browser, folder, "edit-wrong")
    fill(browser, "Command line", line)
    browser.until("it may be saved again", f"!({SAVE}).disabled")
    browser.run(f"({SAVE}).click()")
    browser.until("one is back at the server", "!!document.querySelector('#settings')")
    tail(browser, folder)
    # The whole file, and its secrets.
    browser.goto(f"{url}/file")
    browser.until("the file", "document.querySelector('textarea.file')?.value.includes('mcpServers')")
    whole = browser.run("document.querySelector('textarea.file').value")
    check("the file is shown as it is written", "made by a test" in whole, whole[:300])
    browser.run("(() => { const t = document.querySelector('textarea.file'); t.value = t.value.replace('made by a test', 'made by the test'); t.dispatchEvent(new Event('input', { bubbles: true })); })()")
    browser.until("the whole file is looked at", f"!({SAVE}).disabled && /made by the test/.test(document.querySelector('#preview').innerText)")
    picture(browser, folder, "file")
    browser.run("(() => { const t = document.querySelector('textarea.file'); t.value += '}'; t.dispatchEvent(new Event('input', { bubbles: true })); })()")
    browser.until("a broken file is refused", f"({SAVE}).disabled && /error/i.test(document.querySelector('#preview').innerText)")
    check("a broken file cannot be saved", True)
    # It is deleted, after a question.
    browser.goto(f"{url}/servers/{name}/edit")
    browser.until("the form", "!!document.querySelector('#edit button.danger')")
    browser.run("document.querySelector('#edit button.danger').click()")
    browser.until("it asks", "document.querySelector('dialog[open]')?.textContent.includes('Delete')")
    browser.key("Enter")
    browser.until("it is gone", f"!!document.querySelector('#servers') && !document.querySelector('#s-{name}')")
    check("a server is deleted, after a question", True)


def sections(browser, url, folder):
    browser.goto(f"{url}/sections")
    defaults = browser.run("document.querySelector('#defaults').textContent")
    check("defaults say where they come from", "restart.policy" in defaults and "settings" in defaults, defaults[:300])
    picture(browser, folder, "sections")
    browser.goto(f"{url}/add/section")
    fill(browser, "Name", "panel-test")
    browser.until("it shows what would change", f"!({SAVE}).disabled && !!document.querySelector('#preview .udiff')")
    browser.run(f"({SAVE}).click()")
    browser.until("the section is there", "!!document.querySelector('#sections a[href$=\"/sections/panel-test\"]')")
    check("a section is added from a form", True)
    browser.goto(f"{url}/sections/panel-test/edit")
    browser.until("the form", "!!document.querySelector('#edit button.danger')")
    browser.run("document.querySelector('#edit button.danger').click()")
    browser.until("it asks", "document.querySelector('dialog[open]')?.textContent.includes('Delete')")
    browser.key("Enter")
    browser.until("it is gone", "!!document.querySelector('#sections') && !document.querySelector('#sections a[href$=\"/sections/panel-test\"]')")
    check("and deleted", True)


def settings(browser, url, folder):
    """A setting is changed, put in force, and taken out of the file again."""
    key = "health.interval_seconds"
    field = f"document.getElementById('k-{key}')"
    browser.goto(f"{url}/settings")
    browser.until("the form", f"!!({SAVE}) && !({field}).disabled")
    told = browser.run("document.querySelector('#edit').textContent")
    check("what the environment decides is shown and why it stays", "MCP_ORCHESTRATOR__DASHBOARD__PORT decides it" in told, told[:300])
    check("and cannot be changed", browser.run("document.getElementById('k-dashboard.port').disabled"))
    check("no password is in the page", browser.run("document.getElementById('k-dashboard.password').value") == "")
    picture(browser, folder, "settings")
    set_value(browser, f"[id='k-{key}']", "41")
    browser.until("it shows what would change", f"!({SAVE}).disabled && !!document.querySelector('#preview .udiff')")
    text = preview(browser)
    check("the line is shown before it is saved", "interval_seconds = 41" in text and "In force at once" in text, text)
    picture(browser, folder, "settings-change")
    browser.run(f"({SAVE}).click()")
    browser.until("it is saved", f"({field})?.value === '41' && !document.querySelector('#preview .udiff')")
    row = [row for section in api(browser, "/api/v1/settings")["sections"] for row in section["settings"] if row["name"] == key][0]
    check("a setting is changed from a form", (row["value"], row["origin"]) == ("41", "file"), row)
    browser.until("the form", f"!!({SAVE}) && !({field}).disabled")
    set_value(browser, f"[id='k-{key}']", "100000000")
    browser.until("too much is refused by the field", f"!({field}).checkValidity()")
    browser.run("[...document.querySelectorAll('[data-filter]')].forEach((f) => { f.value = 'webhook nothing'; f.dispatchEvent(new Event('input', { bubbles: true })); })")
    check("settings are found by a word", browser.run("document.querySelectorAll('.set:not([hidden])').length") == 0)
    browser.run("[...document.querySelectorAll('[data-filter]')].forEach((f) => { f.value = 'interval'; f.dispatchEvent(new Event('input', { bubbles: true })); })")
    check("and others are not in the way", 0 < browser.run("document.querySelectorAll('.set:not([hidden])').length") < 10)
    set_value(browser, f"[id='k-{key}']", "")
    browser.until("the default is shown as a change", f"!({SAVE}).disabled && /-interval_seconds = 41/.test(document.querySelector('#preview').innerText)")
    browser.run(f"({SAVE}).click()")
    browser.until("the default is back", f"({field})?.value === '' && !document.querySelector('#preview .udiff')")
    check("and goes back to its default", True)


def plan(browser, url, server, folder):
    """A change that nobody carried out yet is a diff, and one button carries it out."""
    browser.goto(f"{url}/plan")
    browser.until("the plan", "!!document.querySelector('#plan h2')")
    check("the plan's page says how it stands", browser.run("/No changes|to add/.test(document.querySelector('#plan').textContent)"))
    browser.run("document.querySelector('[data-act=sync]').click()")
    browser.until("the sync ended", "[...document.querySelectorAll('.toast')].some((t) => /sync: (done|failed)/.test(t.textContent))")
    picture(browser, folder, "plan")
    check("sync now", True)


def tail(browser, folder):
    """It does not know a flag that it has, and says so."""
    empty = "document.querySelector('pre.log').textContent"
    check("it has printed nothing", "no-such-flag" not in browser.run(empty))
    browser.run("window.kept = 'the same page'; document.querySelector('#head [data-act=start]').click()")
    browser.until("its log goes on by itself", f"{empty}.includes('no-such-flag')", 90)
    check("the log is followed, without loading anew", browser.run("window.kept") == "the same page")
    picture(browser, folder, "log")


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
    told = browser.run("document.querySelector('#settings').textContent")
    check("settings say where they come from", "mcp.config.json:" in told, told[:300])
    events = browser.run("document.querySelector('#events').textContent")
    check("events say what was done to it", "start" in events, events[:300])
    picture(browser, folder, "server-light")


def forms(browser, url, folder):
    """A tool whose arguments are nested objects, arrays and words to choose from."""
    browser.goto(f"{url}/servers/forms")
    browser.until("its tool", "document.querySelectorAll('#tools details').length === 1")
    browser.run("""(() => {
      const tool = document.querySelector('#tools details');
      tool.open = true;
      const field = (text, from = tool) => [...from.querySelectorAll('label')].find((l) => l.textContent.replace(' *', '') === text).control;
      const group = (text) => [...tool.querySelectorAll('fieldset')].find((f) => f.querySelector('legend').textContent.replace(' *', '') === text);
      field('name').value = 'Ann';
      field('gift').value = 'true';
      field('city').value = 'Ulm';
      field('zip').value = '89073';
      field('article').value = 'cup';
      field('count').value = '2';
      [...group('options').querySelectorAll('button')].find((b) => b.textContent === 'Add to options').click();
      field('options[0]').selectedIndex = 1;
      [...tool.querySelectorAll('button')].find((b) => b.textContent === 'Add to items').click();
      const second = [...tool.querySelectorAll('fieldset')].find((f) => f.querySelector('legend').textContent.startsWith('items[1]'));
      field('article', second).value = 'plate';
      field('count', second).value = '3';
      field('extra').value = '{"a": [1, null]}';
    })()""")
    picture(browser, folder, "tool-form")
    browser.run("document.querySelector('#tools form').requestSubmit()")
    browser.until("the answer", "document.querySelector('#tools pre').textContent.startsWith('{')")
    said = json.loads(browser.run("document.querySelector('#tools pre').textContent").rsplit("\n\n", 1)[0])
    wanted = {
        "name": "Ann", "size": "large", "gift": True, "address": {"city": "Ulm", "zip": "89073"}, "extra": {"a": [1, None]},
        "items": [{"article": "cup", "count": 2, "options": ["blue"]}, {"article": "plate", "count": 3}],
    }
    check("a form says nested objects, arrays and choices", said == wanted, said)
    # What the schema does not allow is held back by the form.
    browser.run("[...document.querySelectorAll('#tools label')].find((l) => l.textContent.startsWith('zip')).control.value = 'no'")
    check("and holds back what the schema does not allow", not browser.run("document.querySelector('#tools form').checkValidity()"))


def everywhere(browser, url, server, folder):
    pages = {"overview": "", "server": f"/servers/{server}", "sections": "/sections", "balancer": "/balancer", "plan": "/plan",
             "tasks": "/tasks", "task": "/tasks/1", "audit": "/audit", "add": "/add/server", "file": "/file", "settings": "/settings"}
    for name, path in pages.items():
        browser.size(360, 740, mobile=True)
        browser.goto(url + path)
        if name in ("add", "file", "settings"):
            browser.until("the form", f"!!({SAVE})")
        place = "document.querySelector('nav[aria-label=Main]').getBoundingClientRect()"
        tab = "document.querySelector('nav[aria-label=Main] [aria-current]').getBoundingClientRect()"
        check(f"where one is shows on {name}", browser.run(f"{tab}.left >= {place}.left - 1 && {tab}.right <= {place}.right + 1"))
        check(f"{name} fits 360 px", overflow(browser) <= 0, overflow(browser))
        names = browser.run("[...document.querySelectorAll('button, a, input, select, textarea')].filter((n) => !(n.textContent.trim() || n.title || n.ariaLabel || n.labels?.length || n.type === 'hidden')).length")
        check(f"everything on {name} has a name", names == 0, names)
        picture(browser, folder, f"{name}-360")
        for width in (1120, 1280):
            browser.size(width, 800)
            browser.goto(url + path)
            wide = browser.run("[...document.querySelectorAll('.scroll')].filter((box) => box.scrollWidth > box.clientWidth).length")
            check(f"tables of {name} fit {width} px", wide == 0, wide)
        browser.size(1360, 860)
        browser.dark(True)
        browser.goto(url + path)
        picture(browser, folder, f"{name}-dark")
        browser.dark(False)
    browser.goto(url)
    light = browser.run("getComputedStyle(document.body).backgroundColor")
    browser.run("document.querySelector('#theme').click()")
    check("light and dark by hand", browser.run("getComputedStyle(document.body).backgroundColor") != light)


def access(browser, url, server, folder):
    findings = everything(browser, url, server, folder)
    for finding in findings:
        print(f"   {finding}", flush=True)
    check(f"{findings.checks} checks of roles, names, headings, tables, contrast and keyboard", not findings, f"{len(findings)} findings")


def without_script(browser, url, server):
    """Every page can be read, and lists be narrowed, and nothing is offered that would do nothing."""
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    browser.call("Accessibility.enable")
    pages = {
        "": [server, "local", "converged", "host"], f"/servers/{server}": ["Settings in force", "Why", "Log", "health.interval", "start"],
        "/sections": ["Global defaults", "restart.policy", "tools"], "/balancer": ["Load balancer"], "/plan": ["No changes"],
        "/tasks": ["stop", "done", server], "/audit": ["the loop", "ok", server], "/settings": ["interval_seconds", "Default:"],
        "/file": ["Writing needs a script"], "?q=local&sort=memory": ["local", "process"], "/audit?kind=stop&since=1d": ["stop", server],
    }
    for path, words in pages.items():
        browser.goto(url + path)
        nodes, _ = tree(browser)
        text = " ".join(name for _, name, _, _ in nodes)
        missing = [word for word in words if word not in text]
        check(f"without a script /monitor{path} can be read", not missing, (missing, text[:600]))
        offered = [name for role, name, _, _ in nodes if role == "button" and name.split(" ")[0] in ("Start", "Stop", "Restart", "Pause", "Sync", "Save")]
        check("and offers no button that would do nothing", not offered, offered)
        if path.startswith("?q="):
            rows = [name for role, name, _, _ in nodes if role == "link" and name in (server, "forms")]
            check("and lists are narrowed", not rows, rows)
    browser.call("Accessibility.disable")
    browser.call("Emulation.setScriptExecutionDisabled", value=False)


def timed(what, work):
    begun = time.monotonic()
    work()
    print(f"   {what}: {time.monotonic() - begun:.1f} s", flush=True)


def main():
    url, user, password, server = sys.argv[1:5]
    folder = sys.argv[5] if len(sys.argv) > 5 else None
    if folder:
        os.makedirs(folder, exist_ok=True)
    timed("strangers", lambda: strangers(url))
    browser = Browser(user, password)
    try:
        timed("overview", lambda: overview(browser, url, server, folder))
        timed("task", lambda: task(browser, url, server, folder))
        timed("of the host", lambda: of_the_host(browser, url, server, folder))
        timed("figures", lambda: figures(browser, url, measured(server), folder))
        timed("death", lambda: death(browser, url, server, folder))
        timed("one server", lambda: one_server(browser, url, server, folder))
        timed("forms", lambda: forms(browser, url, folder))
        timed("plan", lambda: plan(browser, url, server, folder))
        timed("sections", lambda: sections(browser, url, folder))
        timed("settings", lambda: settings(browser, url, folder))
        timed("editing", lambda: editing(browser, url, server, folder))
        timed("everywhere", lambda: everywhere(browser, url, server, folder))
        timed("access", lambda: access(browser, url, server, folder))
        timed("history", lambda: history(browser, url, measured(server), folder))
        timed("without a script", lambda: without_script(browser, url, server))
        # What was added is disabled, and then gone: its page may be told so. One page is not there.
        # A drained host says that it is not ready.
        expected = ["/servers/panel-test", "/sections/panel-test", "/nothing-here", "/readyz"]
        odd = [error for error in browser.errors if not any(path in error for path in expected)]
        check("the browser has nothing to complain of", not odd, odd)
    except Exception:
        picture(browser, folder, "failed")
        raise
    finally:
        browser.close()


try:
    main()
except Exception as error:  # noqa: BLE001
    print(f"failed: {error}")
    print(f"{passed} passed, 1 failed")
    sys.exit(1)
print(f"{passed} passed, 0 failed")
