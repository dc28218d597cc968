"""Figures into Markdown: all of them, and the ratios that goals are set for.

Seconds are medians over rounds; a ratio is the median of each round's own ratio, because what else
the machine did falls on both sides of it. The floor stands twice in a round: its median counts.
"""

import statistics

OURS, CONTAINER, FLOOR, ATTACH, PIPE = "ours", "ours, container", "floor", "raw attach", "raw pipe"


def good(figure):
    """Whether a figure may be compared: every call was answered, and rightly."""
    return "failed" not in figure and not figure.get("errors") and not figure.get("hung") and figure["calls"] > 0


def time(us):
    if us is None:
        return "-"
    return f"{us:.0f} us" if us < 1000 else f"{us / 1000:.1f} ms" if us < 1e6 else f"{us / 1e6:.1f} s"


def line(figure):
    """One figure in one line, for watching."""
    if "failed" in figure:
        return f"FAILED: {figure['failed'][:200]}"
    text = f"{figure['rps']:,.0f}/s, p50 {time(figure['p50_us'])}, p99 {time(figure['p99_us'])}"
    if "cpu_us" in figure:
        text += (
            f", CPU {figure['cpu_us']:.0f} us a call (its server {figure['child_cpu_us']:.0f}, load "
            f"{figure['own_cpu_us']:.0f}), {figure['bridge']['rss_mb']:.0f} MB (idle {figure['idle']['rss_mb']:.0f}),"
            f" set-up p50 {time(figure['setup']['p50_us'])}, others took {figure['other_cores']:.1f} cores"
        )
    if not good(figure):
        text += f"; {figure['errors']} ERRORS, {figure['hung']} hung: {(figure.get('first_error') or '')[:200]}"
    return text


def look(figure, path):
    for key in path.split("."):
        figure = figure[key]
    return figure


def rounds(figures, cell, name, path):
    """A value of each round, None where it failed. The floor is measured twice in a round."""
    values = [look(one, path) if good(one) else None for one in figures.get((cell, name), [])]
    if name == FLOOR:
        pairs = [[value for value in values[at : at + 2] if value is not None] for at in range(0, len(values), 2)]
        values = [statistics.median(pair) if pair else None for pair in pairs]
    return values


def median(values):
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


def ratio(ours, theirs):
    return median([a / b for a, b in zip(ours, theirs) if a is not None and b])


def failures(figures, cell, name):
    """What did not work in this cell, in words; empty where all rounds did."""
    tried = figures.get((cell, name), [])
    bad = [one for one in tried if not good(one)]
    if not bad:
        return ""
    word = "hangs" if any(one.get("hung") for one in bad) else "fails"
    return word if len(bad) == len(tried) else f"{word} {len(bad)} of {len(tried)} times"


def cell_text(figures, cell, name):
    """What stands in a cell of the table."""
    if (cell, name) not in figures:
        return "-"
    rps, p50, p99 = (median(rounds(figures, cell, name, path)) for path in ("rps", "p50_us", "p99_us"))
    numbers = [] if rps is None else [f"{rps:,.0f} / {time(p50)} / {time(p99)}"]
    return ", ".join(filter(None, [*numbers, failures(figures, cell, name)]))


def grid(rows):
    head, *rest = rows
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rest))


def calls_table(figures, payload):
    cells = sorted({cell for cell, _ in figures if cell[1] == payload})
    if not cells:
        return ""
    names = list(dict.fromkeys(name for cell, name in figures if cell in cells))
    title = f"{payload // 1000} KB" if payload >= 1000 else f"{payload} B"
    sessions = "/".join(str(cell[0]) for cell in cells)
    head = [f"{title}: calls a second / p50 / p99"]
    head += [f"{count} session{'s' if count > 1 else ''}" for count, _ in cells]
    head += [f"{what}, {sessions}" for what in ("CPU us a call", "MB", "set-up p50")]
    rows = [head]
    for name in names:
        def each(path, form):
            found = [median(rounds(figures, cell, name, path)) for cell in cells]
            return " / ".join("-" if value is None else form(value) for value in found)

        row = [name, *(cell_text(figures, cell, name) for cell in cells)]
        if name in (ATTACH, PIPE):
            row += ["", "", ""]
        else:
            row += [each("cpu_us", "{:.0f}".format), each("bridge.rss_mb", "{:.0f}".format), each("setup.p50_us", time)]
        rows.append(row)
    return grid(rows)


def best(figures, cell, kinds, wanted, path, choose):
    """The best of a kind of peers in each round: values, and the name that was it most often."""
    names = [name for name, kind in kinds.items() if kind == wanted and (cell, name) in figures]
    columns = {name: rounds(figures, cell, name, path) for name in names}
    values, winners = [], []
    for turn in range(max((len(column) for column in columns.values()), default=0)):
        found = [(column[turn], name) for name, column in columns.items() if turn < len(column)]
        value, winner = choose((pair for pair in found if pair[0] is not None), default=(None, None))
        values.append(value)
        winners.append(winner)
    winners = [winner for winner in winners if winner]
    return values, statistics.mode(winners) if winners else None


class Goals:
    """Rows of the table of goals."""

    def __init__(self, figures, kinds):
        self.figures, self.kinds = figures, kinds
        self.rows = [["What", "Measured", "Beside it, in the same run", "Ratio", "Goal"]]

    def row(self, what, cell, name, path, form, goal, beside="", theirs=()):
        """A row, if this cell was run at all."""
        ours = rounds(self.figures, cell, name, path)
        if not ours:
            return
        numbers = [] if median(ours) is None else [form(median(ours))]
        measured = ", ".join(filter(None, [*numbers, failures(self.figures, cell, name)]))
        times = ratio(ours, theirs)
        if beside and median(theirs) is not None:
            beside = f"{beside}: {form(median(theirs))}"
        self.rows.append([what, measured, beside, "" if times is None else f"{times:.2f}", goal])

    def against_best(self, cell, path, form, wanted, goal, choose, what):
        theirs, name = best(self.figures, cell, self.kinds, wanted, path, choose)
        names = [other for other, kind in self.kinds.items() if kind == wanted and (cell, other) in self.figures]
        beside = name or ", ".join(f"{other} {failures(self.figures, cell, other)}" for other in names)
        if name and wanted == "script":
            beside = f"best of Node and Python, {name}"
        self.row(what, cell, OURS, path, form, goal, beside, theirs)

    def against(self, cell, name, other, path, form, goal, what):
        self.row(what, cell, name, path, form, goal, other, rounds(self.figures, cell, other, path))

    def memory(self, cell, goal, what):
        """What the sessions of a cell add to the memory before them."""
        loaded, idle = (rounds(self.figures, cell, OURS, f"{when}.rss_mb") for when in ("bridge", "idle"))
        above = median([None if one is None else one - other for one, other in zip(loaded, idle)])
        if above is not None:
            self.rows.append([what, f"{above:.1f} MB", f"idle: {median(idle):.1f} MB", "", goal])


def goals_table(figures, kinds):
    goals = Goals(figures, kinds)
    per_second = "{:,.0f}/s".format
    for cell, script, rust in (((32, 100), 10, 2), ((256, 100), 10, 2), ((32, 100_000), 5, None)):
        size = "100 KB" if cell[1] > 1000 else "100 B"
        what = f"calls, {cell[0]} sessions, {size}"
        goals.against_best(cell, "rps", per_second, "script", f">= {script}", max, what)
        goals.against_best(cell, "rps", per_second, "rust", f">= {rust}" if rust else "", max, what)
    goals.against_best((1, 100), "p50_us", time, "script", "<= 0.25", min, "median, 1 session, 100 B")
    goals.against_best((32, 100), "p99_us", time, "script", "<= 0.1", min, "p99, 32 sessions, 100 B")
    cpu = "CPU for a call, 32 sessions, 100 B"
    goals.against((32, 100), OURS, FLOOR, "cpu_us", "{:.1f} us".format, "<= 2.5, and 40 us", cpu)
    attach = "median over attach, 1 session, 100 B"
    goals.against((1, 100), CONTAINER, ATTACH, "p50_us", time, "<= 2", attach)
    goals.against((32, 100), CONTAINER, ATTACH, "rps", per_second, "", "calls over attach, 32 sessions, 100 B")
    setup = "256 sessions opened at once, median"
    for wanted in ("script", "rust"):
        goals.against_best((256, 100), "setup.p50_us", time, wanted, "<= 30 ms", min, setup)
    goals.memory((256, 100), "<= 25 MB above idle", "memory of 256 sessions under load, above idle")
    return grid(goals.rows) if len(goals.rows) > 1 else ""


def churn_table(churned):
    rows = [["sessions", "each, idle", "each, connected", "MB before", "after", "descriptors", "threads", "servers"]]
    for name, one in churned.items():
        if "failed" in one:
            rows.append([f"{name}: {one['failed'][:100]}", *[""] * 7])
            continue
        held, before, after = one["held"], one["before"], one["after"]
        servers = [child["processes"] for child in one["children"]]
        rows.append(
            [
                f"{name}, {one['count']:,} in {one['seconds']:.0f} s",
                *(f"{held['kb_idle']:.1f} KB", f"{held['kb_connected']:.1f} KB"),
                *(f"{before['rss_mb']:.1f}", f"{after['rss_mb']:.1f}"),
                *(f"{before[key]} -> {after[key]}" for key in ("fds", "threads")),
                " -> ".join(map(str, servers)),
            ]
        )
    return grid(rows) if churned else ""


def whole(figures, churned, kinds):
    parts = [calls_table(figures, payload) for payload in (100, 100_000)]
    parts += [goals_table(figures, kinds), churn_table(churned)]
    return "\n" + "\n\n".join(part for part in parts if part)
