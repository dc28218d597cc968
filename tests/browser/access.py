"""What a screen reader and a keyboard find on the dashboard's pages: access.py URL USER PASSWORD SERVER [FOLDER]

Roles, names, headings, landmarks and tables are read from the browser's own accessibility tree, which
is what assistive programs are given. Contrast is computed from the colours that the browser resolved,
in light and dark. Each page is walked through with the Tab key alone.
"""

import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from chromium import Browser  # noqa: E402

# Roles that somebody operates.
OPERATED = {"button", "link", "textbox", "searchbox", "combobox", "checkbox", "radio", "spinbutton", "switch", "slider", "tab",
            "menuitem", "listbox", "DisclosureTriangle"}
LANDMARKS = {"banner": 1, "main": 1, "contentinfo": 1}
# Most stops of the Tab key that a page is walked through.
STOPS_MAX = 250
WIDE, NARROW = (1360, 860), (360, 740)

CONTRAST = r"""(() => {
  const parse = (text) => { const m = text.match(/[\d.]+/g)?.map(Number) ?? [0, 0, 0, 0];
    return text.startsWith('color(') ? [m[0] * 255, m[1] * 255, m[2] * 255, m[3] ?? 1] : [m[0], m[1], m[2], m[3] ?? 1]; };
  const over = (top, under) => { const a = top[3] + under[3] * (1 - top[3]);
    return a ? [0, 1, 2].map((i) => (top[i] * top[3] + under[i] * under[3] * (1 - top[3])) / a).concat(a) : [0, 0, 0, 0]; };
  const light = ([r, g, b]) => { const [x, y, z] = [r, g, b].map((v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * x + 0.7152 * y + 0.0722 * z; };
  const behind = (node) => { let found = [0, 0, 0, 0];
    for (let at = node; at; at = at.parentElement) { found = over(found, parse(getComputedStyle(at).backgroundColor)); if (found[3] > 0.999) return found; }
    return over(found, matchMedia('(prefers-color-scheme: dark)').matches ? [18, 18, 18, 1] : [255, 255, 255, 1]); };
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((m, n) => n - m); return (x + 0.05) / (y + 0.05); };
  const faded = (node) => { let o = 1; for (let at = node; at; at = at.parentElement) o *= Number(getComputedStyle(at).opacity); return o; };
  const bad = [];
  let seen = 0;
  const look = (node, text, style) => {
    const box = node.getBoundingClientRect();
    if (!box.width || !box.height || getComputedStyle(node).visibility === 'hidden' || node.closest('.vh, .skip, [aria-hidden=true], :disabled')) return;
    seen += 1;
    const ground = behind(node);
    const ink = parse(style.color);
    const got = ratio(over([ink[0], ink[1], ink[2], ink[3] * faded(node)], ground), ground);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (got < (large ? 3 : 4.5) - 0.005) bad.push(`${got.toFixed(2)} "${text.slice(0, 40)}" ${node.tagName.toLowerCase()}.${node.className} ${style.color}`);
  };
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const text = walk.currentNode.data.trim();
    const node = walk.currentNode.parentElement;
    if (text && !['SCRIPT', 'STYLE', 'NOSCRIPT', 'OPTION'].includes(node.tagName)) look(node, text, getComputedStyle(node));
  }
  for (const field of document.querySelectorAll('input, select, textarea')) {
    if (field.placeholder && !field.value) look(field, field.placeholder, getComputedStyle(field, '::placeholder'));
    else if (field.type !== 'hidden') look(field, field.value || field.name || field.id, getComputedStyle(field));
  }
  return { seen, bad: [...new Set(bad)] };
})()"""

# What tells a control from others; it stays when the page puts a new one in its place.
KEY = r"""window.keyOf = (n) => [n.tagName, n.id, n.getAttribute('href'), n.dataset.act, n.dataset.none, n.name, n.closest('tr')?.id, n.closest('tr')?.rowIndex,
  (n.ariaLabel || n.textContent).trim().slice(0, 40)].join('|');"""
# Where the keyboard is: what it is, whether that can be seen, whether something lies over it.
HERE = r"""(() => {
  const node = document.activeElement;
  if (!node || node === document.body || node === document.documentElement) return null;
  const key = keyOf(node);
  if (!window.stops.has(key)) window.stops.set(key, window.stops.size + 1);
  const style = getComputedStyle(node);
  const shown = (style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 1) || style.boxShadow !== 'none';
  const box = node.getBoundingClientRect();
  const [x, y] = [Math.min(innerWidth - 2, Math.max(1, box.left + Math.min(box.width / 2, 8))), box.top + Math.min(box.height / 2, 8)];
  const top = y >= 0 && y < innerHeight ? document.elementFromPoint(x, y) : null;
  const seen = box.width > 0 && (!!top && (node.contains(top) || top.contains(node)));
  const word = `${node.tagName.toLowerCase()}#${node.id} ${(node.ariaLabel || node.textContent || node.name || '').trim().slice(0, 30)}`;
  return { number: window.stops.get(key), word, shown, seen };
})()"""

REACHABLE = r"""[...document.querySelectorAll('a[href], button, input, select, textarea, summary, [tabindex="0"]')]
  .filter((n) => !n.disabled && n.type !== 'hidden' && n.checkVisibility({ visibilityProperty: true }))"""


class Findings(list):
    """What is not so, by page."""

    def __init__(self):
        super().__init__()
        self.checks = 0

    def check(self, page, what, holds, found=""):
        self.checks += 1
        if not holds:
            self.append(f"{page}: {what}: {found}")


def tree(browser):
    """The nodes that assistive programs are given, in order: role, name, properties, and the node itself."""
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    by_id = {node["nodeId"]: node for node in nodes}
    found = []

    def walk(node):
        if not node.get("ignored"):
            properties = {one["name"]: one["value"].get("value") for one in node.get("properties", [])}
            found.append((node["role"].get("value", ""), node.get("name", {}).get("value", "").strip(), properties, node))
        for child in node.get("childIds", []):
            if child in by_id:
                walk(by_id[child])

    walk(nodes[0])
    return found, by_id


def below(node, by_id):
    for child in node.get("childIds", []):
        if child in by_id:
            yield by_id[child]
            yield from below(by_id[child], by_id)


def named(findings, page, nodes):
    for role, name, _, node in nodes:
        if role in OPERATED:
            findings.check(page, f"a {role} has a name", name, json.dumps(node)[:300])
        if role in ("image", "img"):
            findings.check(page, "a picture has a name or is none", name, json.dumps(node)[:300])


def told_apart(findings, page, nodes):
    """Buttons of one name do one thing: a list of a hundred `Stop` helps nobody."""
    buttons = [name for role, name, _, _ in nodes if role == "button"]
    twice = sorted({name for name in buttons if buttons.count(name) > 1})
    findings.check(page, "buttons are told apart by their names", not twice, twice)


def headings(findings, page, nodes):
    levels = [(properties.get("level", 0), name) for role, name, properties, _ in nodes if role == "heading"]
    firsts = [name for level, name in levels if level == 1]
    findings.check(page, "one heading of the first level", len(firsts) == 1 and firsts[0], levels)
    findings.check(page, "the first heading is of the first level", levels and levels[0][0] == 1, levels)
    jumps = [(one, two) for one, two in zip(levels, levels[1:]) if two[0] > one[0] + 1]
    findings.check(page, "headings leave no level out", not jumps, jumps)


def landmarks(findings, page, nodes):
    for role, count in LANDMARKS.items():
        found = [name for one, name, _, _ in nodes if one == role]
        findings.check(page, f"landmark {role}", len(found) == count, found)
    navigations = [name for role, name, _, _ in nodes if role == "navigation"]
    findings.check(page, "navigations have names of their own", navigations and all(navigations) and len(set(navigations)) == len(navigations), navigations)


def tables(findings, page, nodes, by_id):
    for role, name, _, node in nodes:
        if role not in ("table", "grid"):
            continue
        inside = [one["role"].get("value") for one in below(node, by_id) if not one.get("ignored")]
        findings.check(page, "a table has a caption", name, json.dumps(node)[:300])
        findings.check(page, f"the table {name!r} has header cells", "columnheader" in inside, set(inside))
        findings.check(page, f"the table {name!r} has rows with cells", {"row", "cell"} <= set(inside) or "gridcell" in inside, set(inside))
    count = sum(role in ("table", "grid") for role, _, _, _ in nodes)
    return count


def live(findings, page, browser):
    toasts = browser.run("(() => { const t = document.querySelector('#toasts'); return t && [t.getAttribute('role'), t.getAttribute('aria-live')]; })()")
    findings.check(page, "messages are told politely", toasts == ["status", "polite"], toasts)


def contrast(findings, page, browser, scheme):
    found = browser.run(CONTRAST)
    findings.check(page, f"text can be read, {scheme}", found["seen"] > 5 and not found["bad"], found)


def walk(findings, page, browser):
    """Every place by Tab, and out at the end."""
    # From the first one on, wherever the page itself has put the focus.
    browser.run(f"(() => {{ {KEY} window.stops = new Map(); scrollTo(0, 0); {REACHABLE}[0].focus(); }})()")
    wanted = browser.run(f"{REACHABLE}.length")
    if wanted > STOPS_MAX:
        findings.check(page, "few enough stops to walk through", False, wanted)
        return
    stops = [browser.run(HERE)]
    for _ in range(wanted + 10):
        browser.key("Tab")
        here = browser.run(HERE)
        if here is None:
            continue  # Out at the end, where a browser has its own controls.
        if here["number"] == 1:
            stops[0] = here  # At the beginning again, by keyboard this time.
            break
        stops.append(here)
    words = [stop["word"] for stop in stops]
    missed = browser.run(f"{REACHABLE}.filter((n) => !window.stops.has(keyOf(n))).map((n) => n.outerHTML.slice(0, 120))")
    findings.check(page, "the keyboard gets everywhere", not missed, missed)
    findings.check(page, "and is held nowhere", len({stop["number"] for stop in stops}) == len(stops), words)
    hidden = [stop["word"] for stop in stops if not stop["shown"]]
    findings.check(page, "the focus can be seen", not hidden, hidden)
    covered = [stop["word"] for stop in stops if not stop["seen"]]
    findings.check(page, "and nothing lies over it", not covered, covered)
    findings.check(page, "the first stop leads to the content", words and "Skip" in words[0], words[:2])


def forms(findings, page, browser):
    """Fields have labels, and what is said beside a field belongs to it."""
    bare = browser.run("""[...document.querySelectorAll('input, select, textarea')].filter((n) => n.type !== 'hidden')
      .filter((n) => !(n.labels?.length || n.ariaLabel || n.getAttribute('aria-labelledby'))).map((n) => n.outerHTML.slice(0, 120))""")
    findings.check(page, "fields have labels", not bare, bare)
    loose = browser.run("""[...document.querySelectorAll('[aria-describedby], [aria-labelledby], [aria-controls], label[for]')].flatMap((n) =>
      ['aria-describedby', 'aria-labelledby', 'aria-controls', 'for'].flatMap((a) => (n.getAttribute(a) || '').split(' ').filter(Boolean)))
      .filter((id) => !document.getElementById(id))""")
    findings.check(page, "references lead somewhere", not loose, loose)
    twice = browser.run("""(() => { const ids = [...document.querySelectorAll('[id]')].map((n) => n.id); return ids.filter((id, n) => ids.indexOf(id) !== n); })()""")
    findings.check(page, "ids are given once", not twice, twice)


def look(findings, browser, page, url, ready):
    """One page, wide and narrow, light and dark."""
    browser.size(*WIDE)
    browser.goto(url)
    if ready:
        browser.until(f"{page} is there", ready)
    nodes, by_id = tree(browser)
    named(findings, page, nodes)
    told_apart(findings, page, nodes)
    headings(findings, page, nodes)
    landmarks(findings, page, nodes)
    count = tables(findings, page, nodes, by_id)
    live(findings, page, browser)
    forms(findings, page, browser)
    contrast(findings, page, browser, "light")
    browser.dark(True)
    contrast(findings, page, browser, "dark")
    browser.dark(False)
    walk(findings, page, browser)
    zoom(findings, page, browser)
    browser.size(*NARROW, mobile=True)
    nodes, by_id = tree(browser)
    named(findings, f"{page}, 360 px", nodes)
    findings.check(f"{page}, 360 px", "its tables are still tables", tables(findings, f"{page}, 360 px", nodes, by_id) == count, count)
    contrast(findings, f"{page}, 360 px", browser, "light")
    browser.size(*WIDE)


def zoom(findings, page, browser):
    """Twice as large: half the room for the whole page, or letters twice as large in the same room."""
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    browser.call("Emulation.setDeviceMetricsOverride", width=WIDE[0] // 2, height=WIDE[1] // 2, deviceScaleFactor=2, mobile=False)
    wide = browser.run(overflow)
    findings.check(page, "zoomed to 200 % nothing is cut off", wide <= 0, wide)
    browser.size(*WIDE)
    before = browser.run("parseFloat(getComputedStyle(document.querySelector('h1')).fontSize)")
    browser.run("document.documentElement.style.fontSize = '200%'")
    after, wide = browser.run("parseFloat(getComputedStyle(document.querySelector('h1')).fontSize)"), browser.run(overflow)
    findings.check(page, "letters can be twice as large", after >= before * 1.9 and wide <= 0, (before, after, wide))
    browser.run("document.documentElement.style.fontSize = ''")


def still(findings, browser, url):
    """Nothing moves for whoever does not want that."""
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
    browser.goto(url)
    moving = browser.run("""(() => {
      const pill = document.querySelector('.pill'); pill.className = 'pill running';
      const scroll = getComputedStyle(document.documentElement).scrollBehavior;
      return [document.getAnimations().filter((a) => a.playState === 'running').length, scroll];
    })()""")
    findings.check("overview", "nothing moves where that is asked for", moving == [0, "auto"], moving)
    browser.call("Emulation.setEmulatedMedia", features=[])


def news(findings, browser, url, server):
    """A state that changes is told, once, in words."""
    browser.goto(url)
    browser.until("live", "document.querySelector('#live').textContent === 'live'")
    browser.run("""(() => { window.told = []; const box = document.querySelector('#news');
      new MutationObserver(() => window.told.push(box.textContent)).observe(box, { childList: true, characterData: true, subtree: true }); })()""")
    told = browser.run("(() => { const n = document.querySelector('#news'); return [n.getAttribute('role'), n.getAttribute('aria-live')]; })()")
    findings.check("overview", "states are told politely", told == ["status", "polite"], told)
    browser.run(f"document.querySelector('#s-{server} [data-act=stop]').click()")
    browser.until("it asks", "!!document.querySelector('dialog[open]')")
    nodes, _ = tree(browser)
    dialogs = [name for role, name, _, _ in nodes if role in ("dialog", "alertdialog")]
    findings.check("overview", "a question has a name", len(dialogs) == 1 and "Stop" in dialogs[0], dialogs)
    # The keyboard stays in the question while it is asked, and comes back to the button after it.
    outside = []
    for _ in range(6):
        browser.key("Tab")
        if browser.run("!document.querySelector('dialog').contains(document.activeElement) && document.activeElement !== document.body"):
            outside.append(browser.run("document.activeElement.outerHTML.slice(0, 80)"))
    findings.check("overview", "a question holds the keyboard while it is asked", not outside, outside)
    browser.run("document.querySelector('dialog button[value=yes]').click()")
    browser.until("it is told that it stopped", f"window.told.some((text) => /stopped/.test(text) && text.includes('{server}'))", 60)
    browser.until("the page may be used", f"!!document.querySelector('#s-{server} [data-act=start]')")
    browser.run(f"document.querySelector('#s-{server} [data-act=start]').click()")
    browser.until("and that it is back", f"window.told.some((text) => /converged/.test(text) && text.includes('{server}'))", 90)


def mistakes(findings, browser, url):
    """What is wrong in a field is said at the field, to everybody."""
    browser.goto(f"{url}/add/server")
    browser.until("the form", "!!document.querySelector('#edit button.main')")
    browser.run("[...document.querySelectorAll('#edit button')].find((b) => b.textContent === 'Show what would change').click()")
    browser.until("the field is marked", "!!document.querySelector('#edit [aria-invalid=true]')")
    nodes, _ = tree(browser)
    marked = [(role, name, node.get("description", {}).get("value", "")) for role, name, properties, node in nodes if properties.get("invalid") == "true"]
    findings.check("add a server", "what is wrong belongs to its field", marked and all(name and said for _, name, said in marked), marked)
    shown = browser.run("document.querySelector('#edit .wrong')?.textContent")
    findings.check("add a server", "and can be read beside it", shown, shown)
    browser.run("""(() => { const n = document.querySelector('#edit [aria-invalid=true]'); n.value = 'a-name'; n.dispatchEvent(new Event('input', { bubbles: true })); })()""")
    browser.until("the mark goes with the mistake", "!document.querySelector('#edit input[type=text][required][aria-invalid=true]')")


FORM = "!![...document.querySelectorAll('#edit button')].find((b) => b.textContent === 'Save')"


def pages(url, server):
    origin = url.rsplit("/monitor", 1)[0]
    return {
        "overview": (url, "document.querySelector('#live').textContent === 'live'"),
        "server": (f"{url}/servers/{server}", "document.querySelectorAll('#tools details').length > 0"),
        "sections": (f"{url}/sections", None),
        "balancer": (f"{url}/balancer", None),
        "plan": (f"{url}/plan", None),
        "tasks": (f"{url}/tasks", None),
        "audit": (f"{url}/audit", None),
        "add a server": (f"{url}/add/server", FORM),
        "configuration": (f"{url}/file", FORM),
        "settings": (f"{url}/settings", FORM),
        "API": (f"{origin}/docs", None),
        "not found": (f"{url}/nothing-here", None),
    }


def everything(browser, url, server, folder=None):
    """All findings of all pages."""
    browser.call("Accessibility.enable")
    browser.call("Emulation.setFocusEmulationEnabled", enabled=True)
    findings = Findings()
    for page, (address, ready) in pages(url, server).items():
        look(findings, browser, page, address, ready)
    still(findings, browser, url)
    news(findings, browser, url, server)
    mistakes(findings, browser, url)
    browser.call("Accessibility.disable")
    if folder:
        with open(os.path.join(folder, "access.txt"), "w", encoding="utf-8") as out:
            out.write("\n".join([f"{findings.checks} checks, {len(findings)} findings", *findings]) + "\n")
    return findings


def main():
    url, user, password, server = sys.argv[1:5]
    browser = Browser(user, password)
    try:
        findings = everything(browser, url, server, sys.argv[5] if len(sys.argv) > 5 else None)
    finally:
        browser.close()
    print("\n".join(findings))
    print(f"{findings.checks - len(findings)} passed, {len(findings)} failed")
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()
