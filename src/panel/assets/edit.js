// Forms that write the configuration: fields from the file's schema, and what would change before
// anything is saved.
"use strict";
(() => {
  const { $, make, ask, problem, group, toast, follow, sure, mark } = globalThis.mcpo;
  const base = document.body.dataset.base;

  // ---- the API ------------------------------------------------------------------------------------
  const json = { "Content-Type": "application/json" };
  const paths = {
    server: (id) => `/api/v1/servers${id ? `/${encodeURIComponent(id)}` : ""}`,
    section: (id) => `/api/v1/sections${id ? `/${encodeURIComponent(id)}` : ""}`,
  };
  const read = async (path) => {
    const answer = await ask(path);
    if (!answer.ok) throw new Error(await problem(answer));
    return [await answer.json(), answer.headers.get("ETag")];
  };
  const GUARD = "MCPO-E009";
  // Removing much is meant, once somebody has said so on this page.
  let much = false;
  // A change as a request: method, path, body.
  const send = ({ method, path, body, query }, etag, dry) => {
    const extra = new URLSearchParams(query);
    if (dry) extra.set("dry_run", "true");
    if (much) extra.set("allow_mass_delete", "true");
    const headers = { ...(body === undefined ? {} : json), ...(etag ? { "If-Match": etag } : {}) };
    return ask(`${path}${extra.size ? `?${extra}` : ""}`, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  };

  // ---- command lines ------------------------------------------------------------------------------
  // As a shell reads them, without its variables.
  const words = (line) => {
    const found = [];
    let word = null;
    let quote = "";
    for (let i = 0; i < line.length; i += 1) {
      const c = line[i];
      if (quote) {
        if (c === quote) quote = "";
        else if (c === "\\" && quote === '"' && '"\\$`'.includes(line[i + 1])) word += line[(i += 1)];
        else word += c;
      } else if (c === "'" || c === '"') { quote = c; word ??= ""; }
      else if (c === "\\") { i += 1; if (line[i] !== "\n") word = (word ?? "") + (line[i] ?? ""); }
      else if (/\s/.test(c)) { if (word !== null) found.push(word); word = null; }
      else word = (word ?? "") + c;
    }
    if (quote) throw new Error(`a ${quote} is not closed`);
    if (word !== null) found.push(word);
    return found;
  };
  const split = (line) => { try { return words(line.value); } catch (error) { mark(line, error.message); throw error; } };
  const quoted = (word) => (/^[\w@%+=:,./${}[\]~-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);

  // ---- fields -------------------------------------------------------------------------------------
  let count = 0;
  const labelled = (text, node, about, required) => {
    node.id ||= `e${(count += 1)}`;
    const note = about ? make("span", { class: "small soft", id: `${node.id}-n` }, about.replaceAll("`", "")) : "";
    if (about) node.setAttribute("aria-describedby", `${node.id}-n`);
    return make("div", { class: "field" }, make("label", { for: node.id }, text, required ? make("i", { title: "required" }, " *") : ""), node, note);
  };
  const pick = (options, chosen, attributes = {}) =>
    make("select", attributes, ...options.map(([value, text]) => make("option", { value, selected: value === chosen }, text)));
  // Everything the entry's own form has, in the names of the file.
  const TYPES = [["", "found out by asking"], ["http", "streamable HTTP"], ["sse", "SSE"], ["websocket", "WebSocket"], ["tcp", "TCP"]];
  const without = (object, ...keys) => Object.fromEntries(Object.entries(object || {}).filter(([key]) => !keys.includes(key)));
  const isMap = (value) => value && typeof value === "object" && !Array.isArray(value);
  // What the form shows; other keys stay as they are.
  const fits = (entry) => isMap(entry) && !("runtimeDefinition" in entry)
    && (entry.command === undefined || typeof entry.command === "string")
    && (entry.args === undefined || (Array.isArray(entry.args) && entry.args.every((arg) => ["string", "number", "boolean"].includes(typeof arg))));

  // A form of an entry: nodes, and what reads the entry.
  const entryForm = (entry, schema) => {
    const defs = schema.$defs;
    const about = defs.entry.properties;
    const own = entry.orchestrator || {};
    const far = ["url", "serverUrl", "httpUrl"].find((key) => entry[key] !== undefined);
    const kind = pick([["run", "A container or a local program"], ["url", "A server elsewhere"]], far ? "url" : "run");
    const line = make("textarea", { rows: "4", spellcheck: "false", placeholder: "docker run -i --rm mcp/time" });
    line.value = entry.command === undefined ? "" : [entry.command, ...(entry.args || []).map(String)].map(quoted).join(" ");
    const cwd = make("input", { type: "text", value: entry.cwd });
    const url = make("input", { type: "url", placeholder: ["https:", "", "example.com", "mcp"].join("/"), value: far && entry[far] });
    const type = pick(TYPES.some(([value]) => value === (entry.type || "")) ? TYPES : [...TYPES, [entry.type, entry.type]], entry.type || "");
    const [env, readEnv] = globalThis.mcpo.map("Environment", entry.env, about.env?.description);
    const [headers, readHeaders] = globalThis.mcpo.map("Headers", entry.headers, about.headers?.description);
    const run = make("div", { class: "in" }, labelled("Command line", line, "As in a terminal; `docker run …` makes a container with the flags it has there. Secrets are better references: ${credential:NAME}.", true), labelled("Working directory", cwd, "Of a local program."), env);
    const there = make("div", { class: "in" }, labelled("URL", url, "", true), labelled("How it speaks", type), headers);
    const swap = () => { run.hidden = kind.value !== "run"; there.hidden = kind.value !== "url"; line.required = !run.hidden; url.required = !there.hidden; };
    kind.addEventListener("change", swap);
    swap();
    const on = pick([["true", "Yes"], ["false", "No: it stays stopped"]], String(!(entry.disabled === true || entry.enabled === false)));
    const description = make("input", { type: "text", value: entry.description });
    const timeout = make("input", { type: "text", value: entry.timeout, placeholder: "60s" });
    const more = { type: "object", properties: without(about.orchestrator.properties, "section") };
    const [fieldsBox, readMore] = group(more, schema, 0, own);
    const put = (object, key, value) => { if (value === undefined || value === "") delete object[key]; else object[key] = value; };
    const nodes = [
      labelled("What it is", kind), run, there,
      labelled("Run it", on),
      labelled("Description", description), labelled("Longest request", timeout, about.timeout?.description),
      make("details", { class: "more" }, make("summary", {}, "More settings"), fieldsBox),
    ];
    const readEntry = () => {
      const next = structuredClone(entry);
      if (kind.value === "run") {
        const [command, ...args] = split(line);
        for (const key of ["url", "serverUrl", "httpUrl", "headers"]) delete next[key];
        put(next, "command", command);
        if (JSON.stringify((entry.args || []).map(String)) !== JSON.stringify(args)) put(next, "args", args.length ? args : undefined);
        put(next, "cwd", cwd.value.trim());
        put(next, "env", readEnv());
      } else {
        for (const key of ["command", "args", "cwd", "env"]) delete next[key];
        put(next, far || "url", url.value.trim());
        put(next, "type", type.value);
        put(next, "headers", readHeaders());
      }
      if (on.value === "true") { if (next.disabled === true) delete next.disabled; if (next.enabled === false) delete next.enabled; }
      else if (next.enabled === undefined) next.disabled = true; else next.enabled = false;
      put(next, "description", description.value.trim());
      put(next, "timeout", /^\d+$/.test(timeout.value.trim()) ? Number(timeout.value) : timeout.value.trim());
      const settings = { ...without(own, ...Object.keys(more.properties)), ...readMore() };
      put(next, "orchestrator", Object.keys(settings).length ? settings : undefined);
      return next;
    };
    return [nodes, readEntry];
  };

  // ---- what would change --------------------------------------------------------------------------
  const preview = $("#preview");
  const show = (...nodes) => preview.replaceChildren($("header", preview), ...nodes);
  const note = (text, kind = "soft") => make("p", { class: `pad ${kind}` }, text);
  const differences = (text) => {
    const lines = text.replace(/\n$/, "").split("\n").filter((line) => !line.startsWith("---") && !line.startsWith("+++"));
    const kind = { "+": "add", "-": "del", "@": "mod" };
    return make("pre", { class: "udiff", tabindex: "0", "aria-label": "Changes of the file" }, ...lines.map((line) => make("span", { class: kind[line[0]] || "" }, `${line}\n`)));
  };
  const remarks = (problems) => make("ul", { class: "reasons" }, ...problems.map((one) => {
    const wrong = one.severity === "error";
    const place = one.place?.line ?? one.line;
    return make("li", {}, make("span", { class: `kind ${wrong ? "blocked-by" : "waiting-on"}` }, wrong ? "error" : "warning"),
      make("span", { class: "t" }, one.message, one.hint ? make("small", { class: "soft" }, ` ${one.hint}`) : ""),
      place ? make("span", { class: "tag" }, `line ${place}`) : "", one.code ? make("span", { class: "tag" }, one.code) : "");
  }));
  const steps = (plan) => {
    const actions = plan?.actions || [];
    if (!actions.length) return note("The next pass would change nothing that runs.");
    const kind = { "+": "add", "-": "del" };
    return make("ul", { class: "diff" }, ...actions.map((one) => make("li", { class: kind[one.sign] || "mod" },
      make("span", { class: "s" }, one.sign), make("span", {}, one.action), one.why ? make("small", {}, one.why) : "")));
  };
  const heading = (text) => make("h3", { class: "pad" }, text);
  const outcome = (found) => [
    ...(!found.refused && found.problems?.length ? [heading("Remarks"), remarks(found.problems)] : []),
    heading("In the file"), found.diff ? differences(found.diff) : note("Nothing changes."),
    ...(found.changed && found.applied?.length ? [note(`In force at once: ${found.applied.join(", ")}.`)] : []),
    ...(found.changed && found.needsRestart?.length ? [note(`In force after a restart of the daemon, which refuses no connection: ${found.needsRestart.join(", ")}.`, "why waiting")] : []),
    ...(found.plan ? [heading("In what runs"), steps(found.plan)] : []),
  ];
  const refusal = (body, status) => {
    const meant = make("button", { type: "button", class: "danger" }, "Removing this much is meant");
    meant.addEventListener("click", () => { much = true; meant.disabled = true; toast("", "It is allowed now: try again."); });
    const again = make("button", { type: "button" }, "Load the file again");
    again.addEventListener("click", () => location.reload());
    return [
      note([body.title || `status ${status}`, body.detail].filter(Boolean).join(": "), "why blocked"),
      ...(body.hint ? [note(body.hint)] : []),
      ...(body.problems?.length ? [remarks(body.problems)] : []),
      ...(body.code === GUARD ? [make("div", { class: "pad" }, meant)] : []),
      ...(status === 412 ? [make("div", { class: "pad" }, again)] : []),
    ];
  };

  // ---- the page -----------------------------------------------------------------------------------
  // The form's fields, and what makes a request of them; `remove` is what takes the thing away.
  const begin = (form, { nodes, request, remove, etag, back, names }) => {
    const save = make("button", { class: "main", disabled: true }, "Save");
    const look = make("button", { type: "button" }, "Show what would change");
    const cancel = make("a", { class: "button", href: back }, "Cancel");
    const acts = make("div", { class: "acts" }, save, look, cancel);
    const wrong = make("p", { class: "why blocked", role: "alert" });
    let match = etag;
    let good = null;
    let turn = 0;
    let timer = 0;
    let dirty = false;
    const dry = async (change) => {
      const answer = await send(change, match, true);
      const body = await answer.json().catch(() => ({}));
      return [answer, body];
    };
    const check = async () => {
      clearTimeout(timer);
      turn += 1;
      const mine = turn;
      wrong.textContent = "";
      save.disabled = true;
      let change;
      try { change = request(); } catch (error) { wrong.textContent = error.message; return; }
      const key = JSON.stringify(change);
      try {
        const [answer, body] = await dry(change);
        if (mine !== turn) return;
        const refused = answer.ok ? body.refused : body;
        if (refused) { good = null; show(...refusal(refused, refused.status ?? answer.status), ...(answer.ok ? outcome(body) : [])); return; }
        good = key;
        save.disabled = !body.changed;
        show(...outcome(body));
      } catch (error) { if (mine === turn) show(note(`The daemon does not answer: ${error.message}`, "why blocked")); }
    };
    const later = () => { dirty = true; save.disabled = true; clearTimeout(timer); timer = setTimeout(() => { if (form.matches(":valid")) check(); }, 500); };
    const run = async (change, word) => {
      const answer = await send(change, match, false);
      if (!answer.ok) { show(...refusal(await answer.json().catch(() => ({})), answer.status)); return; }
      dirty = false;
      const task = await answer.json().catch(() => null);
      if (task?.id) try { sessionStorage.setItem("mcp-orchestrator-follow", JSON.stringify([task.id, word])); } catch { /* it is in the list of tasks */ }
      location.assign(names?.(change) ?? back);
    };
    form.addEventListener("input", later);
    form.addEventListener("change", later);
    look.addEventListener("click", () => { if (form.reportValidity()) check(); });
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      let change;
      try { change = request(); } catch (error) { wrong.textContent = error.message; return; }
      // Only what was shown is saved.
      if (JSON.stringify(change) !== good) { await check(); return; }
      save.disabled = true;
      try { await run(change, "save"); } catch (error) { toast("bad", `The daemon does not answer: ${error.message}`); } finally { save.disabled = false; }
    });
    addEventListener("beforeunload", (event) => { if (dirty) event.preventDefault(); });
    if (remove) {
      const gone = make("button", { type: "button", class: "danger" }, "Delete…");
      gone.addEventListener("click", async () => {
        const [answer, body] = await dry(remove.change).catch((error) => [{ ok: false, status: 0 }, { title: error.message }]);
        const refused = answer.ok ? body.refused : body;
        show(...(refused ? refusal(refused, refused.status ?? answer.status) : outcome(body)));
        if (refused || !(await sure("delete", remove.what))) return;
        dirty = false;
        await run(remove.change, `delete ${remove.what}`).catch((error) => toast("bad", error.message));
      });
      acts.append(gone);
    }
    form.replaceChildren(make("div", { class: "in pad" }, ...nodes, wrong, acts));
    show(note("Nothing yet: it is shown here as soon as something is changed."));
    const first = $("input:not([readonly]):not(:disabled), textarea, select:not(:disabled)", form);
    first?.focus({ preventScroll: true });
    if (first?.matches("textarea")) first.setSelectionRange(0, 0);
    return { check, changed: later };
  };

  const writable = (file) => {
    if (!file.writable) throw new Error(`The file cannot be written: ${file.readOnly}`);
    if (file.form === "other") throw new Error("This file is of a form that is read and not written here. Edit the file itself; it is read again at once.");
  };
  const asJson = (value, title) => {
    const text = make("textarea", { rows: "18", spellcheck: "false", "aria-label": title });
    text.value = JSON.stringify(value, null, 2);
    return [text, () => { try { return JSON.parse(text.value); } catch (error) { mark(text, `This is not JSON: ${error.message}`); throw new Error(`This is not JSON: ${error.message}`); } }];
  };

  const server = async (form, { id, section }, whole, schema) => {
    writable(whole);
    const [written, tag] = id ? await read(`${paths.server(id)}/entry`) : [null, null];
    const [all] = await read(paths.section(""));
    const panel = whole.form === "panel";
    const fresh = panel ? { runtimeDefinition: { type: "docker_image", image: "" } } : { command: "docker", args: ["run", "-i", "--rm"] };
    let current = written?.entry ?? fresh;
    const name = make("input", { type: "text", required: true, value: written?.name, readonly: Boolean(id), maxlength: "63", pattern: "[A-Za-z0-9].*" });
    const sections = all.filter((one) => one.declared !== false).map((one) => one.name ?? one.id);
    const home = pick([["", "(none)"], ...sections.map((one) => [one, one])], written?.section || section || "");
    const simple = !panel && fits(current);
    const raw = make("input", { type: "checkbox" });
    const box = make("div", { class: "in" });
    let readEntry;
    const draw = () => {
      let nodes;
      if (raw.checked || !simple) {
        const [node, get] = asJson(current, "The entry as JSON");
        [nodes, readEntry] = [[labelled("The entry as JSON", node)], get];
      } else [nodes, readEntry] = entryForm(current, schema);
      box.replaceChildren(...nodes);
    };
    raw.addEventListener("change", () => {
      try {
        const next = readEntry();
        if (!raw.checked && !fits(next)) throw new Error("No form fits this entry.");
        current = next;
        draw();
      } catch (error) { raw.checked = !raw.checked; toast("bad", error.message); }
    });
    draw();
    // Where the entry itself says its section, it is written there.
    const placed = () => {
      const entry = readEntry();
      if (panel || home.value === (written?.section || "")) return [entry, {}];
      const { section: _, ...rest } = entry.orchestrator || {};
      const own = home.value ? { ...rest, section: home.value } : rest;
      return [{ ...without(entry, "orchestrator"), ...(Object.keys(own).length ? { orchestrator: own } : {}) }, {}];
    };
    return {
      nodes: [
        labelled("Name", name, id ? "Another name would be another server." : "Letters, digits, - and _; clients reach it under /mcp/NAME.", true),
        labelled("Section", home, "What the section says holds unless the server says otherwise."),
        box, ...(simple ? [make("label", { class: "check" }, raw, "Edit it as JSON")] : []),
      ],
      request: () => {
        const [entry, query] = placed();
        if (id) return { method: "PUT", path: paths.server(id), body: entry, query: panel && home.value ? { section: home.value } : query };
        return { method: "POST", path: paths.server(""), body: { name: name.value.trim(), entry, ...(panel && home.value ? { section: home.value } : {}) } };
      },
      remove: id && { what: id, change: { method: "DELETE", path: paths.server(id) } },
      etag: tag ?? written?.etag, back: form.dataset.back,
      names: (change) => (change.method === "PUT" ? undefined : base),
    };
  };

  // Settings that are handed down, as fields or, where they have another form, as JSON.
  const inherited = (whole, settings, schema, key, title) => {
    if (whole.form === "map") return group({ type: "object", properties: schema.$defs[key].properties }, schema, 0, settings);
    const [node, get] = asJson(settings, title);
    return [labelled(title, node), get];
  };
  const section = async (form, { id }, whole, schema, tag) => {
    writable(whole);
    const [written] = id ? await read(paths.section(id)) : [null];
    const name = make("input", { type: "text", required: true, value: written?.name ?? id, readonly: Boolean(id) });
    const settings = written?.settings ?? {};
    const [box, get] = inherited(whole, settings, schema, "section", "Its settings as JSON");
    const known = whole.form === "map" ? Object.keys(schema.$defs.section.properties) : Object.keys(settings);
    const all = () => ({ ...without(settings, ...known), ...get() });
    return {
      nodes: [labelled("Name", name, "", true), box],
      request: () => id ? { method: "PUT", path: paths.section(id), body: all() } : { method: "POST", path: paths.section(""), body: { name: name.value.trim(), settings: all() } },
      remove: id && { what: `section ${id}`, change: { method: "DELETE", path: paths.section(id), query: { servers: "move" } } },
      etag: tag, back: form.dataset.back,
      names: (change) => (change.method === "PUT" ? undefined : `${base}/sections`),
    };
  };

  const defaults = async (form, _, whole, schema) => {
    writable(whole);
    const [settings, tag] = await read("/api/v1/panel/defaults");
    const [box, get] = inherited(whole, settings, schema, "inherited", "Global defaults as JSON");
    const known = whole.form === "map" ? Object.keys(schema.$defs.inherited.properties) : Object.keys(settings);
    return { nodes: [box], request: () => ({ method: "PUT", path: "/api/v1/panel/defaults", body: { ...without(settings, ...known), ...get() } }), etag: tag, back: form.dataset.back };
  };

  const file = async (form, _, whole, _schema, tag) => {
    const text = make("textarea", { class: "file", rows: "32", spellcheck: "false", readonly: !whole.writable, wrap: "off" });
    text.value = whole.content;
    if (!whole.writable) toast("bad", `The file cannot be written: ${whole.readOnly}`);
    return { nodes: [labelled(whole.file, text)], request: () => ({ method: "PUT", path: "/api/v1/panel", body: { content: text.value } }), etag: tag, back: form.dataset.back };
  };

  // The fields are in the page; what may be changed can be, from here on.
  const settings = async (form) => {
    const [found, tag] = await read("/api/v1/settings");
    const fields = [...form.querySelectorAll("[data-set]")];
    const open = found.writable ? fields.filter((field) => field.dataset.edit !== undefined) : [];
    // Empty is "nothing is said"; a space or its tick is "said, and empty", which only containers have.
    const none = (field) => form.querySelector(`[data-none="${field.dataset.set}"]`);
    const say = (field) => (none(field)?.checked ? "" : field.value === "" ? null : field.value.trim());
    for (const field of open) {
      const tick = none(field);
      field.dataset.was = JSON.stringify(say(field));
      field.disabled = tick?.checked ?? false;
      if (!tick) continue;
      tick.disabled = false;
      tick.addEventListener("change", () => { field.disabled = tick.checked; });
    }
    const find = form.querySelector("[data-filter]");
    find.addEventListener("input", (event) => {
      event.stopPropagation();
      const word = find.value.trim().toLowerCase();
      for (const set of form.querySelectorAll(".set")) set.hidden = !set.dataset.find.toLowerCase().includes(word);
      for (const card of form.querySelectorAll("[data-section]")) card.hidden = !card.querySelector(".set:not([hidden])");
    });
    for (const kind of ["change", "keydown"]) find.addEventListener(kind, (event) => { if (kind === "change" || event.key === "Enter") { event.stopPropagation(); if (kind === "keydown") event.preventDefault(); } });
    return {
      nodes: [...form.childNodes],
      request: () => {
        const changed = open.filter((field) => JSON.stringify(say(field)) !== field.dataset.was);
        return { method: "PATCH", path: "/api/v1/settings", body: Object.fromEntries(changed.map((field) => [field.dataset.set, say(field)])) };
      },
      etag: tag ?? found.etag, back: form.dataset.back,
    };
  };

  const start = async () => {
    const form = $("#edit");
    if (!form) return;
    try {
      if (form.dataset.kind === "settings") { begin(form, await settings(form)); return; }
      const [[whole, tag], [schema]] = await Promise.all([read("/api/v1/panel"), read("/api/v1/panel/schema")]);
      const make_ = { server, section, defaults, file }[form.dataset.kind];
      begin(form, await make_(form, form.dataset, whole, schema, tag ?? whole.etag));
    } catch (error) { form.replaceChildren(make("p", { class: "pad why blocked", role: "alert" }, error.message)); }
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
