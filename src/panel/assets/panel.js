// Live updates, actions with confirmation, log tails and tool forms. Pages can be read without it.
"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  const $ = (selector, from = document) => from.querySelector(selector);
  const $$ = (selector, from = document) => [...from.querySelectorAll(selector)];
  const make = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === true) node.setAttribute(name, "");
      else if (value !== false && value != null) node.setAttribute(name, value);
    }
    node.append(...children);
    return node;
  };
  const HEADERS = { "X-MCP-Orchestrator": "1" };
  // Absolute, because a page may have been opened with credentials in its address.
  const ask = (path, options = {}) =>
    fetch(location.origin + path, { cache: "no-store", ...options, headers: { ...HEADERS, ...options.headers } });

  // ---- theme: as the system has it, or as chosen -------------------------------------------------
  const THEME = "mcp-orchestrator-theme";
  const wish = (() => { try { return localStorage.getItem(THEME); } catch { return null; } })();
  if (wish) root.dataset.theme = wish;
  const ready = () => {
    $("#theme")?.addEventListener("click", () => {
      const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
      root.dataset.theme = dark ? "light" : "dark";
      try { localStorage.setItem(THEME, root.dataset.theme); } catch { /* it holds for this page */ }
    });
    dress(document);
    // On a narrow screen where one is may be out of sight.
    $("nav a[aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
    tick();
    setInterval(tick, 1000);
    live();
    logs();
    tools();
    tries();
    // What was saved on the page before is followed here.
    try {
      const [id, word] = JSON.parse(sessionStorage.getItem("mcp-orchestrator-follow") || "[]");
      sessionStorage.removeItem("mcp-orchestrator-follow");
      if (id) follow(id, toast("", `${word}: task ${id} is running`), word);
    } catch { /* nothing was */ }
  };

  // ---- times --------------------------------------------------------------------------------------
  const span = (ms) => {
    const s = Math.round(Math.abs(ms) / 1000);
    if (s < 60) return `${s} s`;
    if (s < 3600) return `${Math.floor(s / 60)} min${s % 60 && s < 600 ? ` ${s % 60} s` : ""}`;
    if (s < 86400) return `${Math.floor(s / 3600)} h${s % 3600 >= 60 ? ` ${Math.floor((s % 3600) / 60)} min` : ""}`;
    return `${Math.floor(s / 86400)} d`;
  };
  // The server's clock counts, not the visitor's.
  const skew = Number(document.body?.dataset.now || Date.now()) - Date.now();
  const tick = () => {
    for (const node of $$("time[data-at]")) {
      const left = Number(node.dataset.at) - (Date.now() + skew);
      const text = left > 0 ? `in ${span(left)}` : node.dataset.kind === "until" ? "now" : `${span(left)} ago`;
      if (!node.title) node.title = node.textContent;
      if (node.textContent !== text) node.textContent = text;
    }
  };

  // Buttons of rows: what can be done is said there in a word each.
  const WORDS = { start: ["Start", "play"], stop: ["Stop", "stop"], restart: ["Restart", "restart"], resume: ["Resume", "play"] };
  const SVG = "http://www.w3.org/2000/svg";
  const dress = (from) => {
    for (const box of $$("[data-acts]:empty", from)) {
      for (const act of box.dataset.acts.split(" ").filter(Boolean)) {
        const [title, shape] = WORDS[act];
        const icon = document.createElementNS(SVG, "svg");
        const use = document.createElementNS(SVG, "use");
        icon.setAttribute("class", "i");
        icon.setAttribute("aria-hidden", "true");
        use.setAttribute("href", `#i-${shape}`);
        icon.append(use);
        // Of a hundred buttons `Stop` nobody knows which is which: each says whose it is.
        const label = `${title} ${$(".name", box.closest("tr"))?.textContent ?? ""}`;
        box.append(make("button", { class: "icon", "data-act": act, title, "aria-label": label }, icon));
      }
    }
  };

  // ---- live updates -------------------------------------------------------------------------------
  const adopt = (now, next) => {
    // What somebody opened stays open.
    for (const one of $$("details[open][id]", now)) $(`#${one.id}`, next)?.setAttribute("open", "");
    if (now.isEqualNode(next)) return;
    const rows = now.dataset.rows !== undefined;
    if (!rows) { holding(now, () => now.replaceWith(next), next); return; }
    const held = new Map([...now.children].map((row) => [row.id, row]));
    const order = [...next.children].map((row) => {
      const old = held.get(row.id);
      return old?.isEqualNode(row) ? old : row;
    });
    const focused = document.activeElement?.closest("tr");
    holding(now.contains(focused) ? focused : null, () => now.replaceChildren(...order), order.find((row) => row.id && row.id === focused?.id));
  };
  // Whoever is on a control when the page around it changes stays on what has taken its place.
  const CONTROLS = "a, button, summary";
  const holding = (old, change, next) => {
    const at = document.activeElement;
    const place = old?.contains(at) && at.matches(CONTROLS) ? $$(CONTROLS, old).indexOf(at) : -1;
    change();
    if (place < 0 || !next || at.isConnected) return;
    const all = $$(CONTROLS, next);
    const same = all.find((one) => (at.id && one.id === at.id) || (at.dataset.act && one.dataset.act === at.dataset.act));
    (same ?? all[Math.min(place, all.length - 1)])?.focus({ preventScroll: true });
  };
  // What a screen reader is told of: states that changed, a few by name.
  const states = () => {
    const rows = $$("tr[id^=s-]").map((row) => [$(".name", row)?.textContent, $(".pill", row)?.textContent]);
    const title = $("#head h1");
    return new Map(title && $(".pill", title) ? [[title.firstChild.textContent.trim(), $(".pill", title).textContent]] : rows);
  };
  const tell = (text) => { const box = $("#news"); if (box) box.textContent = text; };
  const news = (before) => {
    const changed = [...states()].filter(([name, state]) => before.has(name) && before.get(name) !== state);
    if (!changed.length) return;
    tell(changed.length > 3 ? `${changed.length} servers look different` : changed.map(([name, state]) => `${name} is ${state}`).join(", "));
  };
  let again = null;
  let running = false;
  const refresh = async () => {
    if (running) { again ??= setTimeout(() => { again = null; refresh(); }, 300); return; }
    running = true;
    try {
      const answer = await ask(location.pathname + location.search);
      if (!answer.ok) return;
      const before = states();
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const now of $$("[data-live]")) {
        const next = page.getElementById(now.id);
        if (next) dress(next);
        const busy = now.contains(document.activeElement) && !document.activeElement.matches(CONTROLS);
        if (next && !busy) adopt(now, document.adoptNode(next));
      }
      news(before);
      document.title = page.title;
      tick();
    } catch { /* the stream says that the daemon is away */ } finally { running = false; }
  };
  const live = () => {
    const mark = $("#live");
    if (!mark || !$("[data-live]")) return;
    const say = (kind, text) => { mark.className = `live ${kind}`; mark.textContent = text; };
    let lost = false;
    let away = false;
    let source = null;
    const open = () => {
      source?.close();
      source = new EventSource(`${location.origin}/api/v1/events`);
      source.addEventListener("open", () => { say("on", "live"); if (away) tell("The daemon answers again"); if (lost) refresh(); lost = away = false; });
      source.addEventListener("error", () => { if (!away) tell("The daemon does not answer"); lost = away = true; say("lost", "reconnecting"); });
      for (const kind of ["report", "tasks"]) source.addEventListener(kind, () => refresh());
      source.addEventListener("usage", () => { if ($("[data-usage]")) refresh(); });
    };
    open();
    // Figures are read less often while nobody looks.
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) { source.close(); lost = true; } else open();
    });
    addEventListener("pagehide", () => source.close());
  };

  // ---- actions ------------------------------------------------------------------------------------
  const toast = (kind, ...content) => {
    const box = $("#toasts");
    const node = make("div", { class: `toast ${kind}` }, ...content);
    box.append(node);
    setTimeout(() => node.remove(), kind === "bad" ? 15000 : 6000);
    return node;
  };
  // What is asked before: only where something is lost.
  const cut = "Sessions end and requests under way fail.";
  const questions = {
    stop: (id) => [`Stop ${id}?`, `${cut} Nothing starts again until somebody says so.`, "Stop"],
    restart: (id) => [`Restart ${id}?`, `${cut} Clients begin new sessions.`, "Restart"],
    drain: () => ["Drain this host?", "Its servers leave the load balancer once requests under way there have ended; everything runs on, and /readyz answers 503 until the host is brought back.", "Drain"],
    pause: (id) => id === "all servers" && ["Pause all servers?", "Whatever ends stays ended, and nothing is replaced or balanced anew, until they are resumed.", "Pause"],
    delete: (id) => [`Delete ${id}?`, "It goes from the file, and what runs of it is stopped and removed. Named volumes stay.", "Delete"],
  };
  const sure = (act, id) => new Promise((decided) => {
    const question = questions[act]?.(id === "all" ? "all servers" : id);
    if (!question) { decided(true); return; }
    const [title, about, word] = question;
    const yes = make("button", { class: `main ${act === "stop" || act === "delete" ? "danger" : ""}`, value: "yes" }, word);
    const dialog = make("dialog", { "aria-labelledby": "sure" },
      make("form", { method: "dialog" }, make("h2", { id: "sure" }, title), make("p", {}, about),
        make("div", { class: "acts" }, make("button", { value: "no" }, "Cancel"), yes)));
    dialog.addEventListener("close", () => { decided(dialog.returnValue === "yes"); dialog.remove(); });
    document.body.append(dialog);
    dialog.showModal();
    yes.focus();
  });
  const problem = async (answer) => {
    const body = await answer.json().catch(() => ({}));
    return [body.title || `status ${answer.status}`, body.detail, body.code && `[${body.code}]`].filter(Boolean).join(" · ");
  };
  document.addEventListener("click", async (event) => {
    const button = event.target.closest?.("button[data-act]");
    // One that waits for its answer stays where the keyboard is.
    if (!button || button.ariaDisabled === "true") return;
    const { act } = button.dataset;
    const id = button.dataset.id ?? button.closest("tr").id.slice(2);
    const kind = button.dataset.of ?? "servers";
    if (!(await sure(act, kind === "sections" ? `all servers of section ${id}` : id))) return;
    button.ariaDisabled = "true";
    const word = id ? `${act} ${id}` : act;
    const path = id ? `${kind}/${encodeURIComponent(id)}/${act}` : act === "undrain" ? "drain?undo=true" : act;
    try {
      const answer = await ask(`/api/v1/${path}`, { method: "POST" });
      if (!answer.ok) { toast("bad", await problem(answer)); return; }
      const task = await answer.json();
      const link = make("a", { href: `${document.body.dataset.base}/tasks/${task.id}` }, `task ${task.id}`);
      follow(task.id, toast("", `${word}: `, link, " is running"), word);
    } catch (error) { toast("bad", `The daemon does not answer: ${error.message}`); } finally { button.ariaDisabled = null; }
  });
  const follow = async (id, note, word) => {
    const poll = async () => (await ask(`/api/v1/tasks/${id}`)).json();
    for (let round = 0; round < 240; round += 1) {
      const task = await poll().catch(() => null);
      const many = task?.servers?.length ?? 0;
      if (many > 1) note.lastChild.textContent = note.lastChild.textContent.replace(/is running.*/, `is running, ${task.results.length} of ${many}`);
      if (task && task.state !== "running") {
        const wrong = (task.results || []).filter((result) => !result.ok);
        note.remove();
        if (task.state === "done") toast("", `${word}: done`);
        else toast("bad", `${word}: ${task.state}. `, wrong.map((r) => `${r.server}: ${r.why || r.state}`).join("; "));
        refresh();
        return;
      }
      await new Promise((later) => setTimeout(later, round < 10 ? 500 : 2500));
    }
  };

  // ---- charts: the value under the pointer, or where the arrow keys lead ---------------------------
  const sized = (value) => { let unit = 0; let left = value; while (left >= 1000 && unit < 4) { left /= 1024; unit += 1; } return `${left.toFixed(left < 9.95 && unit ? 1 : 0)} ${["B", "KiB", "MiB", "GiB", "TiB"][unit]}`; };
  const short = (value) => String(Number(value.toPrecision(3)));
  const READ = {
    cpu: (point) => point.cpuPercent == null ? null : `${short(point.cpuPercent)} %`,
    memory: (point) => point.memoryBytes == null ? null : sized(point.memoryBytes),
    requests: (point) => `${point.requests} requests, ${point.errors} failed`,
    p95: (point) => point.p95Millis == null ? null : `${short(point.p95Millis)} ms`,
  };
  const points = new Map();
  const history = (path) => {
    const kept = points.get(path);
    if (kept && Date.now() - kept.at < 30000) return kept.found;
    const found = ask(path).then((answer) => (answer.ok ? answer.json() : { points: [] })).then((body) => body.points).catch(() => []);
    points.set(path, { at: Date.now(), found });
    return found;
  };
  const rest = (figure) => {
    const out = $("figcaption .num", figure);
    if (out.dataset.rest !== undefined) out.textContent = out.dataset.rest;
    out.classList.remove("read");
    $(".cursor", figure)?.remove();
  };
  // Shows the point nearest to a share of the width, or so many points beside the one shown.
  const readout = async (svg, share, step = 0) => {
    const figure = svg.closest("figure");
    const { from, to, read } = figure.dataset;
    const all = (await history(figure.closest("[data-points]").dataset.points)).filter((point) => point.at >= Number(from) && READ[read](point) !== null);
    if (!all.length || !svg.isConnected) return;
    const at = share === null ? Number(figure.dataset.at ?? to) : Number(from) + share * (to - from);
    let n = 0;
    all.forEach((point, index) => { if (Math.abs(point.at - at) < Math.abs(all[n].at - at)) n = index; });
    const point = all[Math.max(0, Math.min(all.length - 1, n + step))];
    figure.dataset.at = point.at;
    const out = $("figcaption .num", figure);
    out.dataset.rest ??= out.textContent;
    out.setAttribute("aria-live", "polite");
    out.classList.add("read");
    out.textContent = `${new Date(point.at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })} · ${READ[read](point)}`;
    let line = $(".cursor", figure);
    if (!line) { line = document.createElementNS(SVG, "path"); line.setAttribute("class", "cursor"); svg.append(line); }
    line.setAttribute("d", `M${Math.round(Math.min(1, (point.at - from) / (to - from)) * 1000)} 0v100`);
  };
  const plotted = (event) => event.target.closest?.(".plot")?.querySelector("svg");
  document.addEventListener("pointermove", (event) => {
    const svg = plotted(event);
    if (!svg) return;
    const box = svg.getBoundingClientRect();
    readout(svg, Math.max(0, Math.min(1, (event.clientX - box.left) / box.width)));
  });
  document.addEventListener("pointerout", (event) => { const svg = plotted(event); if (svg && !svg.contains(event.relatedTarget) && document.activeElement !== svg) rest(svg.closest("figure")); });
  document.addEventListener("focusout", (event) => { if (plotted(event)) rest(event.target.closest("figure")); });
  document.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -1e6, End: 1e6 };
    const svg = event.target.matches?.(".plot svg") ? event.target : null;
    if (!svg || !(event.key in steps)) return;
    event.preventDefault();
    readout(svg, null, svg.closest("figure").dataset.at ? steps[event.key] : 0);
  });

  // ---- log tail -----------------------------------------------------------------------------------
  const logs = async () => {
    const box = $("pre.log[data-logs]");
    if (!box) return;
    // Numbers of lines may be times in nanoseconds, which are more than a number holds here.
    let after = box.dataset.after || "0";
    let bottom = true;
    box.scrollTop = box.scrollHeight;
    box.addEventListener("scroll", () => { bottom = box.scrollHeight - box.scrollTop - box.clientHeight < 24; });
    for (;;) {
      try {
        const answer = await ask(`${box.dataset.logs}?after=${after}&wait=25`);
        if (!answer.ok) return;
        const text = await answer.text();
        const { lines } = JSON.parse(text);
        if (lines.length) {
          if (box.dataset.empty !== undefined) { delete box.dataset.empty; box.textContent = ""; }
          after = [...text.matchAll(/"number":(\d+)/g)].at(-1)[1];
          box.append(lines.map((line) => `${line.text}\n`).join(""));
          if (box.textContent.length > 200000) box.textContent = box.textContent.slice(-100000);
          if (bottom) box.scrollTop = box.scrollHeight;
        } else await new Promise((later) => setTimeout(later, 1500));
      } catch { await new Promise((later) => setTimeout(later, 3000)); }
    }
  };

  // ---- mistakes: said at the field, to everybody ---------------------------------------------------
  const mark = (field, text) => {
    field.id ||= `x${(fields += 1)}`;
    const id = `${field.id}-e`;
    const others = (field.getAttribute("aria-describedby") ?? "").split(" ").filter((one) => one && one !== id);
    let note = document.getElementById(id);
    if (text) {
      if (!note) { note = make("span", { class: "wrong small", id }); field.after(note); }
      note.textContent = text;
      field.setAttribute("aria-invalid", "true");
    } else { note?.remove(); field.removeAttribute("aria-invalid"); }
    const about = text ? [...others, id] : others;
    if (about.length) field.setAttribute("aria-describedby", about.join(" ")); else field.removeAttribute("aria-describedby");
  };
  document.addEventListener("invalid", (event) => mark(event.target, event.target.validationMessage), true);
  document.addEventListener("input", ({ target }) => { if (target.ariaInvalid === "true") mark(target, target.validity?.valid ? "" : target.validationMessage); }, true);

  // ---- tools: a form from each schema -------------------------------------------------------------
  const deref = (schema, whole, depth = 0) => {
    if (!schema || typeof schema !== "object") return {};
    if (schema.$ref?.startsWith("#/") && depth < 8) {
      const found = schema.$ref.slice(2).split("/").reduce((at, key) => at?.[key.replaceAll("~1", "/").replaceAll("~0", "~")], whole);
      return deref(found, whole, depth + 1);
    }
    const any = schema.anyOf || schema.oneOf;
    if (any && depth < 8) {
      const real = any.filter((one) => one?.type !== "null");
      if (real.length === 1) return { ...deref(real[0], whole, depth + 1), description: schema.description || real[0].description, default: schema.default };
    }
    return schema;
  };
  const kindOf = (schema) => {
    const kinds = [].concat(schema.type || (schema.properties ? "object" : schema.items ? "array" : [])).filter((kind) => kind !== "null");
    return kinds.length === 1 ? kinds[0] : null;
  };
  let fields = 0;
  // A node, and what reads its value: undefined is "nothing said".
  const field = (name, schema, whole, required, depth, given) => {
    schema = deref(schema, whole);
    if (given !== undefined) schema = { ...schema, default: given };
    const id = `f${(fields += 1)}`;
    const kind = kindOf(schema);
    const label = make("label", { for: id }, schema.title && !name ? schema.title : name, required ? make("i", { title: "required" }, " *") : "");
    const about = schema.description ? make("span", { class: "small soft", id: `${id}-n` }, schema.description.replaceAll("`", "")) : "";
    const wrap = (node) => { if (about) node.setAttribute("aria-describedby", about.id); return make("div", { class: "field" }, label, node, about); };
    if (schema.enum || schema.const !== undefined) {
      const values = schema.enum || [schema.const];
      const node = make("select", { id });
      if (!required) node.append(make("option", { value: "" }, "(not given)"));
      values.forEach((value, n) => node.append(make("option", { value: String(n), selected: schema.default === value }, String(value))));
      return [wrap(node), () => (node.value === "" ? undefined : values[Number(node.value)])];
    }
    if (kind === "boolean") {
      const node = make("select", { id });
      for (const [value, text] of [["", "(not given)"], ["true", "true"], ["false", "false"]]) {
        if (value || !required) node.append(make("option", { value, selected: String(schema.default) === value }, text));
      }
      return [wrap(node), () => (node.value === "" ? undefined : node.value === "true")];
    }
    if (kind === "integer" || kind === "number") {
      const node = make("input", { id, type: "number", step: kind === "integer" ? "1" : "any", min: schema.minimum, max: schema.maximum, required, value: schema.default });
      return [wrap(node), () => (node.value === "" ? undefined : Number(node.value))];
    }
    if (kind === "string") {
      const long = (schema.maxLength || 0) > 200;
      const node = long ? make("textarea", { id, rows: "3", required }) : make("input", { id, type: "text", required, pattern: schema.pattern && `.*(?:${schema.pattern}).*`, placeholder: [].concat(schema.examples || [])[0], value: schema.default });
      return [wrap(node), () => (node.value === "" && !required ? undefined : node.value)];
    }
    if (textual(schema)) {
      const now = schema.default;
      const node = make("input", { id, type: "text", required, placeholder: [].concat(schema.examples || []).join(", "), value: now });
      // A number stays one.
      return [wrap(node), () => { const text = node.value.trim(); return text === "" ? undefined : text === String(now) ? now : /^-?\d+(\.\d+)?$/.test(text) ? Number(text) : text; }];
    }
    if (kind === "object" && !schema.properties && schema.additionalProperties) return map(name, given, schema.description);
    if (kind === "object" && schema.properties && depth < 5) {
      const [node, read] = group(schema, whole, depth + 1, given);
      return [make("fieldset", {}, make("legend", {}, name, required ? " *" : ""), about, node), () => {
        const value = read();
        return Object.keys(value).length || required ? value : undefined;
      }];
    }
    if (kind === "array" && schema.items && depth < 5) {
      const list = make("div", { class: "field" });
      const reads = new Map();
      const add = make("button", { type: "button" }, `Add to ${name}`);
      const item = (value) => {
        const [node, read] = field(`${name}[${reads.size}]`, schema.items, whole, true, depth + 1, value);
        const remove = make("button", { type: "button", class: "icon", "aria-label": `Remove ${name}[${reads.size}]` }, "Remove");
        const row = make("div", { class: "field" }, node, remove);
        remove.addEventListener("click", () => { reads.delete(row); row.remove(); list.dispatchEvent(new Event("change", { bubbles: true })); });
        reads.set(row, read);
        list.append(row);
      };
      add.addEventListener("click", () => { item(); list.dispatchEvent(new Event("change", { bubbles: true })); });
      if (Array.isArray(schema.default)) schema.default.forEach(item);
      else if (required && schema.minItems > 0) item();
      return [make("fieldset", {}, make("legend", {}, name, required ? " *" : ""), about, list, add), () => {
        const values = [...reads.values()].map((read) => read());
        return values.length || required ? values : undefined;
      }];
    }
    // What no form fits is written as JSON.
    const node = make("textarea", { id, rows: "3", placeholder: "JSON", required });
    if (schema.default !== undefined) node.value = JSON.stringify(schema.default);
    return [wrap(node), () => {
      if (node.value.trim() === "") return undefined;
      try { return JSON.parse(node.value); } catch (error) { mark(node, `This is not JSON: ${error.message}`); throw new Error(`${name} is not JSON: ${error.message}`); }
    }];
  };
  // A value that is written as a word or a number.
  const textual = (schema) => {
    const all = schema.oneOf || (Array.isArray(schema.type) ? schema.type.map((type) => ({ type })) : []);
    return all.length > 1 && all.every((one) => ["string", "number", "integer", "boolean"].includes(one.type));
  };
  // Names and values; a placeholder for a secret stays unless something is written over it.
  const map = (title, values, about) => {
    const list = make("div", { class: "pairs" });
    const rows = new Set();
    const told = () => list.dispatchEvent(new Event("change", { bubbles: true }));
    const put = (key = "", value = "") => {
      const hidden = typeof value === "string" && value.startsWith("[redacted:");
      const name = make("input", { type: "text", value: key, "aria-label": `${title}: name`, placeholder: "NAME" });
      const node = make("input", { type: "text", value: hidden ? "" : value, "aria-label": `${title}: value`, placeholder: hidden ? "kept as it is" : "value" });
      const remove = make("button", { type: "button", class: "icon", "aria-label": `Remove ${key || "this line"}`, title: "Remove" }, "✕");
      const row = make("div", { class: "pair" }, name, node, remove);
      const reading = () => [name.value.trim(), node.value === "" && hidden ? value : node.value === String(value) ? value : node.value];
      remove.addEventListener("click", () => { rows.delete(reading); row.remove(); told(); });
      rows.add(reading);
      list.append(row);
      return name;
    };
    for (const [key, value] of Object.entries(values || {})) put(key, value);
    const add = make("button", { type: "button", "aria-label": `Add to ${title}` }, "Add");
    add.addEventListener("click", () => put().focus());
    const node = make("fieldset", {}, make("legend", {}, title), about ? make("span", { class: "small soft" }, about.replaceAll("`", "")) : "", list, make("div", {}, add));
    return [node, () => {
      const found = Object.fromEntries([...rows].map((reading) => reading()).filter(([key]) => key));
      return Object.keys(found).length ? found : undefined;
    }];
  };
  const group = (schema, whole, depth, values) => {
    const reads = [];
    const box = make("div", { class: "in" });
    for (const [name, part] of Object.entries(schema.properties || {})) {
      const [node, read] = field(name, part, whole, (schema.required || []).includes(name), depth, values?.[name]);
      box.append(node);
      reads.push([name, read]);
    }
    return [box, () => {
      const value = {};
      for (const [name, read] of reads) {
        const given = read();
        if (given !== undefined) value[name] = given;
      }
      return value;
    }];
  };
  const shown = (result) => {
    const parts = (result.content || []).map((part) => part.type === "text" ? part.text : JSON.stringify(part, null, 2));
    if (result.structuredContent !== undefined && !parts.length) parts.push(JSON.stringify(result.structuredContent, null, 2));
    return parts.join("\n") || JSON.stringify(result, null, 2);
  };
  const tool = (base, one) => {
    const schema = one.inputSchema || {};
    const [fieldsBox, read] = group(schema, schema, 0);
    const out = make("pre", { hidden: true, "aria-live": "polite" });
    const run = make("button", { class: "main", "aria-label": `Call ${one.name}` }, "Call");
    const form = make("form", {}, fieldsBox, make("div", { class: "in" }, make("div", { class: "acts" }, run), out));
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      run.disabled = true;
      out.hidden = false;
      out.textContent = "…";
      const begun = performance.now();
      try {
        const body = JSON.stringify({ tool: one.name, arguments: read() });
        const answer = await ask(`${base}/call`, { method: "POST", headers: { "Content-Type": "application/json" }, body });
        if (!answer.ok) out.textContent = await problem(answer);
        else {
          const result = await answer.json();
          out.textContent = `${result.isError ? "error: " : ""}${shown(result)}\n\n${Math.round(performance.now() - begun)} ms`;
        }
      } catch (error) { out.textContent = error.message; } finally { run.disabled = false; }
    });
    return make("details", {}, make("summary", {}, make("code", {}, one.name), make("span", { class: "t small" }, one.description || one.title || "")), form);
  };
  const tools = async () => {
    const box = $("#tools");
    if (!box) return;
    const base = box.dataset.api;
    const load = async () => {
      box.textContent = "Asking the server…";
      box.className = "pad soft";
      try {
        const answer = await ask(`${base}/capabilities`);
        if (!answer.ok) throw new Error(await problem(answer));
        const found = await answer.json();
        box.textContent = "";
        box.className = "";
        const list = found.tools || [];
        if (!list.length) { box.className = "pad soft"; box.textContent = "It offers no tools."; }
        box.append(...list.map((one) => tool(base, one)));
      } catch (error) {
        const retry = make("button", { type: "button" }, "Ask again");
        retry.addEventListener("click", load);
        box.textContent = "";
        box.append(make("p", {}, error.message), retry);
      }
    };
    await load();
  };

  // ---- the API's page: try a route ----------------------------------------------------------------
  const tries = () => {
    for (const form of $$("form[data-try]")) {
      form.addEventListener("submit", async (event) => {
        event.preventDefault();
        const out = $("pre", form);
        out.hidden = false;
        const data = new FormData(form);
        let path = form.dataset.try;
        const query = new URLSearchParams();
        const headers = {};
        for (const [name, value] of data) {
          if (name.startsWith("header:") && value !== "") headers[name.slice(7)] = value;
          if (name.startsWith("path:")) path = path.replace(`{${name.slice(5)}}`, encodeURIComponent(value));
          else if (name.startsWith("query:") && value !== "") query.set(name.slice(6), value);
        }
        const text = query.size ? `${path}?${query}` : path;
        const body = data.get("body") || undefined;
        try {
          if (body) headers["Content-Type"] = "application/json";
          const answer = await ask(text, { method: form.dataset.method, headers, body });
          const raw = await answer.text();
          let pretty = raw;
          try { pretty = JSON.stringify(JSON.parse(raw), null, 2); } catch { /* plain text */ }
          out.textContent = `${form.dataset.method} ${text}\n${answer.status} ${answer.statusText}\n\n${pretty}`;
        } catch (error) { out.textContent = error.message; }
      });
    }
  };

  globalThis.mcpo = { $, make, ask, problem, group, map, toast, follow, sure, mark };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", ready);
  else ready();
})();
