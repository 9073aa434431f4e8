"""What tools/benchmark makes of measured data: summaries, Markdown tables, sections of a document.

Nothing here runs a program or asks for the time: the same data give the same text.
"""

import csv
import io

# The latencies of a load are summed up in pieces of this length.
BUCKET_S = 0.1
# "Flat in size": the largest process's fork over the smallest's.
FLAT_MAX = 2
REDIS_MAX_RATIO = 1.5

STALL_MIB = {"fork-stall-64m": 64, "fork-stall-256m": 256, "fork-stall-1g": 1024,
             "fork-stall-2g": 2048}

HTAP_COLUMNS = ["system", "table_mib", "writers", "scans_read", "transactions_per_s", "longest_ms",
                "scans", "wrong", "stall_max_ms", "held_mib"]


class Malformed(Exception):
    """Data or a document that is not as it should be, as a sentence."""


def number(value):
    """Four significant digits, without an exponent."""
    if value is None:
        return "-"
    size = abs(value)
    if size >= 1000:
        return f"{value:.0f}"
    if size >= 100:
        return f"{value:.1f}"
    if size >= 1:
        return f"{value:.2f}"
    return f"{value:.3f}"


def cell(samples):
    """Median and minimum of what dbos-bench says of repeated measurements."""
    if samples is None:
        return "-"
    if samples["count"] == 1:
        return number(samples["median"])
    return f"{number(samples['median'])} ({number(samples['min'])})"


def markdown(head, rows, right=()):
    """A table; the columns of these numbers are aligned to the right."""
    lines = ["| " + " | ".join(head) + " |",
             "| " + " | ".join("---:" if i in right else "---" for i in range(len(head))) + " |"]
    lines += ["| " + " | ".join(str(value) for value in row) + " |" for row in rows]
    return "\n".join(lines)


def met(value):
    return {True: "yes", False: "**no**", None: ""}[value]


# --- Parsing ------------------------------------------------------------------------------------


def parse_htap(text):
    """What runs of htap print, each after a line 'system NAME'; a dictionary a row."""
    rows, system, table = [], None, None
    for line in text.splitlines():
        if line.startswith("system "):
            system, table = line.split(None, 1)[1], None
        elif line.startswith("table: "):
            words = line.replace(",", "").split()
            table = {"system": system, "table_mib": int(words[1]), "writers": int(words[4])}
        elif table and not line.startswith(("scans read", "every scan", "WRONG")):
            words = line.split()
            try:
                figures = [float(word) for word in words[-6:]]
            except ValueError:
                raise Malformed(f"htap printed a line that is no row: '{line}'") from None
            if len(words) < 7:
                raise Malformed(f"htap printed a line that is no row: '{line}'")
            names = HTAP_COLUMNS[4:]
            row = dict(table, scans_read=" ".join(words[:-6]), **dict(zip(names, figures)))
            row["scans"], row["wrong"] = int(row["scans"]), int(row["wrong"])
            rows.append(row)
    if not rows:
        raise Malformed("htap printed no rows")
    return rows


def quantile(ordered, share):
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def latency_buckets(requests, width_s=BUCKET_S):
    """(start of the bucket in s, requests, median and maximum latency in ms), from (start in s, latency in
    ms). A request belongs to the bucket in which it was answered: there a client has noticed."""
    buckets = {}
    for start_s, latency_ms in requests:
        buckets.setdefault(int((start_s + latency_ms / 1000) // width_s), []).append(latency_ms)
    rows = []
    for index in sorted(buckets):
        ordered = sorted(buckets[index])
        rows.append((round(index * width_s, 3), len(ordered), quantile(ordered, 0.5), ordered[-1]))
    return rows


def csv_text(head, rows):
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    table.writerow(head)
    table.writerows(rows)
    return file.getvalue()


# --- Tables -------------------------------------------------------------------------------------


def machine_text(facts):
    """What dbos-bench says of the machine that it ran in."""
    return (f"{facts['processor']}, {facts['kind']}, {facts['cores']} processors, {facts['memory_mib']} MiB, "
            f"{facts['kernel']}, clock {facts['clock_source']}, "
            f"mitigations {'off' if facts['mitigations_off'] else 'on'}")


def about_text(about, facts=None):
    """Where and when a part was measured, in a paragraph; `facts` are dbos-bench's, of another machine."""
    text = (f"Measured on {about['date']}, on {about['host']}. "
            f"Load of this host: {about['load_before']:.1f} before, {about['load_after']:.1f} after, of "
            f"{about['processors']} processors.")
    if about.get("machine"):
        text += f" The machine: {machine_text(facts) if facts else about['machine']}."
    if about.get("emulator"):
        text += f" Its emulator: {about['emulator']}."
    return text


def bench_text(result):
    rows, notes = [], []
    for row in result["rows"]:
        rows.append([row["what"], row["unit"], cell(row["linux"]), cell(row["dbos"]),
                     number(row["ratio"]), row["must"] or "", met(row["met"]) if row["must"] else ""])
        if row.get("failure"):
            notes.append(f"- {row['what']}: not measured, {row['failure']}")
        elif row.get("note"):
            notes.append(f"- {row['what']}: {row['note']}")
    head = ["what", "unit", "Linux", "dbos", "ratio", "must", "met"]
    text = markdown(head, rows, right=(2, 3, 4))
    return text + ("\n\n" + "\n".join(notes) if notes else "")


def spread(samples, digits=2):
    return f"{samples['median']:.{digits}f} ({samples['min']:.{digits}f} .. {samples['max']:.{digits}f})"


def native_text(result):
    sizes = [[f"{size['gib']} GiB", f"{size['table_bytes'] / 1e6:.1f}",
              *(spread(size[key]) for key in ("shared_us", "ready_us", "ready_changed_us",
                                              "copy_ms", "memcpy_ms"))]
             for size in result["sizes"]]
    text = markdown(["mapped", "tables, MB", "snapshot, shared, us", "ready, in step, us",
                     "ready, changed, us", "copy made, ms", "memcpy, ms"], sizes, right=range(2))
    faults = [[fault["what"], spread(fault["ns"], 0)] for fault in result["faults"]]
    text += "\n\n" + markdown(["first write of a page after a snapshot", "ns"], faults)
    fork = result["linux_fork"]
    if fork:
        text += (f"\n\nLinux's fork of {fork['pages'] / 262144:.1f} GiB in 4 KiB pages: "
                 f"{spread(fork['fork_ms'])} ms, {fork['fork_ms']['median'] * 1e6 / fork['pages']:.1f} ns a page. "
                 f"A process that shares its memory: {spread(fork['process_us'])} us.")
    return text


def htap_text(rows):
    cells = [[row["system"], f"{row['table_mib']} MiB", row["writers"], row["scans_read"],
              f"{row['transactions_per_s']:.0f}", number(row["longest_ms"]), row["scans"], row["wrong"],
              number(row["stall_max_ms"]), f"{row['held_mib']:.1f}"] for row in rows]
    return markdown(["system", "table", "writers", "scans read", "transactions/s", "longest, ms",
                     "scans", "wrong", "longest stall, ms", "held, MiB"], cells, right=(2, 4, 5, 6, 7, 8, 9))


def redis_text(result):
    return markdown(result["table"][0],
                    [row for row in result["table"][1:] if row[0] != "machine"],
                    right=range(2, len(result["table"][0])))


# --- Bounds -------------------------------------------------------------------------------------


def bound(what, must, value, is_met):
    return {"what": what, "must": must, "value": value, "met": is_met}


def flatness(result):
    """dbos's stall of the largest process over the smallest's; None if one was not measured."""
    stalls = {STALL_MIB[row["name"]]: row["dbos"]["min"] for row in result["rows"]
              if row["name"] in STALL_MIB and row["dbos"]}
    if len(stalls) < len(STALL_MIB):
        return None
    return stalls[max(stalls)] / stalls[min(stalls)]


def bench_bounds(result):
    found = []
    for row in result["rows"]:
        if not row["must"]:
            continue
        of_ratio = row["must"].endswith("x")
        value = "-"
        if row["dbos"]:
            value = f"{number(row['ratio'])} x" if of_ratio else f"{number(row['dbos']['median'])} {row['unit']}"
            if of_ratio and row["linux"] and row["linux"]["min"] > 0:
                value += f" (minima: {number(row['dbos']['min'] / row['linux']['min'])})"
        found.append(bound(row["what"], row["must"] + ("" if of_ratio else " " + row["unit"]), value, row["met"]))
    flat = flatness(result)
    if flat is not None:
        found.append(bound("fork() flat in size: 2 GiB over 64 MiB, of the minima", f"<= {FLAT_MAX} x",
                           f"{number(flat)} x", flat <= FLAT_MAX))
    return found


def native_bounds(result):
    return [bound(f"natively: {limit['what']}", f"<= {number(limit['at_most'])} {limit['unit']}",
                  f"{number(limit['value'])} {limit['unit']}", limit["met"]) for limit in result["bounds"]]


def redis_bounds(result):
    columns = result["table"][0]
    found = []
    for row in result["table"][1:]:
        if row[0] == "max during / max without" and "dbos-run" in columns:
            ours = float(row[columns.index("dbos-run")])
            plain = row[columns.index("plain")] if "plain" in columns else "-"
            found.append(bound(f"redis with {result['size_mb']} MB: longest request during BGSAVE over longest without",
                               f"<= {REDIS_MAX_RATIO} x", f"{ours:.2f} x (plain redis: {plain})",
                               ours <= REDIS_MAX_RATIO))
    return found


def htap_bounds(rows):
    wrong = sum(row["wrong"] for row in rows if row["scans_read"] in ("a snapshot", "a forked child"))
    return [bound("HTAP: inconsistent pairs seen in a snapshot", "none", str(wrong), wrong == 0)]


def all_bounds(data):
    makers = {"native": native_bounds, "calls": bench_bounds, "snapshots": bench_bounds,
              "server": bench_bounds, "htap": htap_bounds, "redis": redis_bounds}
    return [found for part, maker in makers.items() if part in data
            for found in maker(data[part]["result"])]


def bounds_text(data):
    return markdown(["what", "must", "measured", "met"],
                    [[b["what"], b["must"], b["value"], met(b["met"])] for b in all_bounds(data)])


# --- The document -------------------------------------------------------------------------------

TABLES = {"native": native_text, "calls": bench_text, "snapshots": bench_text, "server": bench_text,
          "htap": htap_text, "redis": redis_text}

# The file's name without .svg, and what it shows.
PLOTS = {"native": ("native", "What snapshots cost natively, by size"),
         "snapshots": ("fork-stall", "How long fork() keeps its caller, by size"),
         "htap": ("htap", "The longest transaction, by what is scanned"),
         "redis": ("redis-latency", "Redis's latency over time, with a save")}


def replace_section(document, name, text):
    """The document with `text` between '<!-- benchmark: NAME -->' and '<!-- end -->'."""
    begin, end = f"<!-- benchmark: {name} -->\n", "<!-- end -->\n"
    head, found, rest = document.partition(begin)
    old, ended, tail = rest.partition(end)
    if not found or not ended or "<!-- benchmark:" in old:
        raise Malformed(f"the document has no section '{begin.strip()}' that '{end.strip()}' ends")
    return f"{head}{begin}\n{text}\n\n{end}{tail}"


def check_sections(document):
    """Raises Malformed unless each part's section is there."""
    for name in ["bounds", *TABLES]:
        replace_section(document, name, "")


def fill(document, data):
    """The document with the tables of all parts that there are data of."""
    for part, made in data.items():
        facts = made["result"].get("machine") if isinstance(made["result"], dict) else None
        text = about_text(made["about"], facts) + "\n\n" + TABLES[part](made["result"])
        if part in PLOTS:
            plot, shows = PLOTS[part]
            text += f"\n\n![{shows}](performance/{plot}.svg)"
        document = replace_section(document, part, text)
    return replace_section(document, "bounds", bounds_text(data))


def longest_by_system(rows):
    """(what was scanned, longest transaction on Linux, under dbos in ms) of each run, in its order."""
    pairs = {}
    for row in rows:
        label = f"{row['table_mib']} MiB, {row['writers']} w: {row['scans_read']}"
        pairs.setdefault(label, {})[row["system"]] = row["longest_ms"]
    return [(label, pair["Linux"], pair["dbos"]) for label, pair in pairs.items() if len(pair) == 2]


def plot_data(data):
    """The plots' CSV files but redis's, as text by name."""
    files = {}
    if "native" in data:
        result = data["native"]["result"]
        files["native.csv"] = csv_text(
            ["gib", "shared_us", "ready_us", "ready_changed_us", "copy_us", "memcpy_us"],
            [[size["gib"], size["shared_us"]["median"], size["ready_us"]["median"],
              size["ready_changed_us"]["median"], size["copy_ms"]["median"] * 1000,
              size["memcpy_ms"]["median"] * 1000] for size in result["sizes"]])
        fork = result["linux_fork"]
        files["native-fork.csv"] = csv_text(
            ["gib", "fork_us"],
            [[fork["pages"] / 262144, fork["fork_ms"]["median"] * 1000]] if fork else [])
    if "snapshots" in data:
        stalls = [[STALL_MIB[row["name"]], row["linux"]["median"], row["linux"]["min"],
                   row["dbos"]["median"], row["dbos"]["min"]]
                  for row in data["snapshots"]["result"]["rows"]
                  if row["name"] in STALL_MIB and row["linux"] and row["dbos"]]
        files["fork-stall.csv"] = csv_text(
            ["mib", "linux_median_us", "linux_min_us", "dbos_median_us", "dbos_min_us"], stalls)
    if "htap" in data:
        rows = data["htap"]["result"]
        files["htap.csv"] = csv_text(HTAP_COLUMNS, [[row[name] for name in HTAP_COLUMNS] for row in rows])
        files["htap-longest.csv"] = csv_text(["scans", "linux_ms", "dbos_ms"], longest_by_system(rows))
    return files
