"""The report of `edgevoice eval`: one HTML page that needs nothing else."""

from __future__ import annotations

from html import escape
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from edgevoice import plots
from edgevoice.report_text import groups, number, percent

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_MOST_LINES: Final = 60  # of a list; the rest is in results.json
_FIRST_LINES: Final = 12  # of confusions, shown without opening the rest
_MOST_CONDITIONS: Final = 12  # of the plot of what was not right; of more, those of a noise are one


def page(summary: dict[str, Any]) -> str:
    """Return the page for a summary as results.json has it."""
    models = summary["models"]
    several = len(models) > 1
    compared = _card("Models compared", "", _comparison(models), wide=True) if several else ""
    if several and len(models[0]["ratios"]) > 1:
        compared += _card(
            "Accuracy in noise", "All noises together.", plots.accuracy_by_snr(models), wide=True
        )
    css = resources.files("edgevoice").joinpath("report.css").read_text("utf-8")
    names = ", ".join(model["name"] for model in models)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>edgevoice eval: {escape(names)}</title>\n<style>\n{css}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>How well commands are understood</h1>\n"
        f'<p class="muted">{escape(names)} · {summary["recordings"]} recordings of commands · '
        f"{escape(summary['date'][:10])}</p>\n"
        + (f'<div class="grid">{compared}</div>' if several else "")
        + "".join(_model(model, summary, several=several) for model in models)
        + _about(summary)
        + "</main>\n</body>\n</html>\n"
    )


def _model(model: dict[str, Any], summary: dict[str, Any], *, several: bool) -> str:
    threshold = summary["min_confidence"]
    cards = [
        _card(
            "Commands",
            "Right: an accepted utterance has the intent and every labelled slot. Guess: at any confidence. "
            "Small figures are exact 95 % intervals.",
            _conditions(groups(model)),
            wide=True,
        )
    ]
    if len(model["ratios"]) > 1:
        cards.append(
            _card(
                "In noise",
                "Bars are 95 % intervals. " + ("" if len(model["noises"]) <= 4 else "All noises together."),
                plots.accuracy_by_snr([model]),
            )
        )
    wrong = [group for group in _for_plot(model) if group["right"]["count"] < group["right"]["of"]]
    if wrong:
        cards.append(
            _card("What was not right", "Refused for a reason, or accepted wrongly.", plots.not_right(wrong))
        )
    if len(model["noises"]) > 1 and len(model["ratios"]) > 1:
        cards.append(_card("Noise by noise", "Right and accepted, %.", _heat(model), wide=True))
    if model["false_accepts"]:
        note = f"Large marks: the threshold in use, {threshold:g}; small: 0.1 (right), 0.3 to 0.9."
        cards.append(_card("Trade-off", note, plots.trade_off(model, threshold)))
    cards.append(
        _card("By threshold", "What would be accepted at others.", plots.by_threshold(model, threshold))
    )
    if model["false_accepts"]:
        cards.append(_card("False accepts", "", _false_accepts(model["false_accepts"]), wide=True))
    if model["near_misses"]:
        text = f"Each value said was taken out of the list {summary['near_misses']} of the grammar."
        cards.append(_card("Near misses", text, _near_misses(model["near_misses"]), wide=True))
    if model["latency_ms"]:
        cards.append(
            _card(
                "Computing time",
                "Dark: to the median, the number. Pale: to 95 %. Line: to the longest.",
                plots.latency(model),
            )
        )
        cards.append(_card("Stages", "Milliseconds.", _latency(model["latency_ms"])))
    cards.append(_card("Slots", "Right in the best guess, accepted or not.", _slots(model)))
    cards.append(_card("Confusions", "Of best guesses, all conditions.", _confusions(model["confusions"])))
    if model["errors"]:
        cards.append(
            _card("Not heard", "Recordings that could not be used.", _errors(model["errors"]), wide=True)
        )
    title = f"<h2>{escape(model['name'])}</h2>\n" if several else ""
    return f'<section>\n{title}{_tiles(model)}<div class="grid">\n{"".join(cards)}</div>\n</section>\n'


def _for_plot(model: dict[str, Any]) -> list[dict[str, Any]]:
    conditions: list[dict[str, Any]] = model["conditions"]
    if len(conditions) <= _MOST_CONDITIONS:
        return conditions
    return [*(each for each in conditions if not each["noise"]), *model["noises"]]


# ---- parts of the page ----


def _tiles(model: dict[str, Any]) -> str:
    tiles = [_share_tile("right, clean", model["conditions"][0]["right"])]
    if noisy := model["all_noises"]:
        tiles.append(_share_tile("right, in noise", noisy["right"]))
    if false := model["false_accepts"]:
        hours = false["utterances"]
        span = f"{number(hours['low'])} to {number(hours['high'])}"
        small = f"{hours['count']} in {hours['hours']:.2f} h<br>95 %: {span}"
        tiles.append(_tile(number(hours["per_hour"]), "false accepts an hour", small))
    if near := model["near_misses"]:
        tiles.append(_share_tile("near misses accepted", near["accepted"]))
    if model["latency_ms"]:
        total = model["latency_ms"]["total"]
        memory = f"{model['peak_memory_bytes'] / 1e6:.0f} MB of memory"
        small = f"median; 95 %: {total['p95']:.0f} ms<br>{memory}"
        tiles.append(_tile(f"{total['p50']:.0f} ms", "computing time", small))
    return f'<div class="tiles">\n{"".join(tiles)}</div>\n'


def _share_tile(name: str, share: dict[str, Any]) -> str:
    small = f"{share['count']} of {share['of']}<br>95 %: {_span(share)}"
    return _tile(percent(share["rate"]), name, small)


def _tile(value: str, name: str, small: str) -> str:
    return f'<div class="card tile"><span>{name}</span><b>{value}</b><small>{small}</small></div>\n'


def _card(title: str, text: str, body: str, *, wide: bool = False) -> str:
    about = f"<p>{escape(text)}</p>" if text else ""
    return f'<div class="card{" wide" if wide else ""}"><h3>{title}</h3>{about}{body}</div>\n'


def _table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numbers: Iterable[int] = (),
    hidden: Iterable[int] = (),
) -> str:
    """Return a table of HTML cells; `numbers` are right-aligned columns, `hidden` ones not for a phone."""
    numbers, hidden = set(numbers), set(hidden)

    def cell(tag: str, column: int, text: str) -> str:
        classes = " ".join(
            name for name, columns in (("number", numbers), ("secondary", hidden)) if column in columns
        )
        return f'<{tag} class="{classes}">{text}</{tag}>' if classes else f"<{tag}>{text}</{tag}>"

    def row(tag: str, cells: Sequence[str]) -> str:
        return f"<tr>{''.join(cell(tag, column, text) for column, text in enumerate(cells))}</tr>\n"

    body = "".join(row("td", cells) for cells in rows)
    return f'<div class="scroll"><table><thead>{row("th", head)}</thead><tbody>\n{body}</tbody></table></div>'


def _conditions(found: Sequence[dict[str, Any]]) -> str:
    lowest = min((group["right"]["low"] for group in found if group["right"]["of"]), default=0.0)
    floor = int(lowest * 10) / 10 if lowest < 1 else 0.0
    rows = [
        (
            escape(group["name"]),
            f"{percent(group['right']['rate'])}",
            f"<small>{_span(group['right'])}</small>",
            _interval(group["right"], floor),
            percent(group["right_before_threshold"]["rate"]),
            percent(group["intent"]["rate"]),
            _count(group["wrong_accepted"]["count"]),
            escape(_reasons(group["refusals"])),
        )
        for group in found
    ]
    head = (
        "",
        "right",
        "95 %",
        f"<small>{100 * floor:.0f} to 100 %</small>",
        "guess",
        "intent",
        "wrong",
        "refused",
    )
    return _table(head, rows, numbers=(1, 2, 4, 5, 6), hidden=(3, 4, 5, 7))


def _interval(share: dict[str, Any], floor: float) -> str:
    """An interval as a bar on the way from `floor` to 1."""
    if share["rate"] is None:
        return ""
    low, high, rate = (100 * (share[key] - floor) / (1 - floor) for key in ("low", "high", "rate"))
    return (
        f'<span class="interval"><i style="left:{low:.1f}%;width:{high - low:.1f}%"></i>'
        f'<b style="left:{rate:.1f}%"></b></span>'
    )


def _count(count: int) -> str:
    return f'<span class="bad">{count}</span>' if count else "0"


def _reasons(refusals: dict[str, int]) -> str:
    return ", ".join(f"{reason.replace('_', ' ')} {count}" for reason, count in refusals.items()) or "none"


def _heat(model: dict[str, Any]) -> str:
    """Noises by ratios, each cell the deeper the more is missing."""
    rates = {(each["noise"], each["snr_db"]): each["right"]["rate"] for each in model["conditions"]}
    ratios = sorted(each["snr_db"] for each in model["ratios"])
    head = "".join(f'<th class="number">{ratio:g} dB</th>' for ratio in ratios)
    rows = ""
    for noise in model["noises"]:
        cells = ""
        for ratio in ratios:
            rate = rates.get((noise["name"], ratio))
            missing = 0 if rate is None else min(2.4 * (1 - rate), 0.6)  # a quarter wrong is the deepest
            tint = f"background:color-mix(in srgb, var(--series-2) {100 * missing:.0f}%, transparent)"
            cells += f'<td class="number" style="{tint}">{percent(rate)}</td>'
        rows += f"<tr><td>{escape(noise['name'])}</td>{cells}</tr>\n"
    return f'<div class="scroll"><table class="heat"><tr><th></th>{head}</tr>\n{rows}</table></div>'


def _slots(model: dict[str, Any]) -> str:
    group = model["all_noises"] or model["conditions"][0]
    clean = model["conditions"][0]["slots"]
    noisy = model["all_noises"]["slots"] if model["all_noises"] else {}
    rows = [
        (
            escape(slot),
            _share_cell(clean[slot]) if slot in clean else "",
            *([_share_cell(noisy[slot])] if noisy else []),
        )
        for slot in group["slots"]
    ]
    if not rows:
        return '<p class="muted">No slot is labelled.</p>'
    return _table(("slot", "clean", *(["in noise"] if noisy else [])), rows, numbers=(1, 2))


def _share_cell(share: dict[str, Any]) -> str:
    return f"{percent(share['rate'])}<br><small>{_span(share)}</small>"


def _false_accepts(found: dict[str, Any]) -> str:
    folders = (
        [*found["folders"], {**found, "name": "together"}] if len(found["folders"]) > 1 else found["folders"]
    )
    rows = [
        (
            f'<span class="file">{escape(_tail(each["name"]))}</span>',
            f"{each['clips']['count']} of {each['clips']['of']}",
            f"{percent(each['clips']['rate'])} <small>{_span(each['clips'])}</small>",
            number(each["utterances"]["per_hour"]),
            f"<small>{number(each['utterances']['low'])} to {number(each['utterances']['high'])}</small>",
            f"{each['utterances']['hours']:.2f}",
        )
        for each in folders
    ]
    head = ("", "recordings", "share, 95 %", "an hour", "95 %", "hours")
    return _table(head, rows, numbers=(1, 2, 3, 4, 5), hidden=(2, 5)) + _accepted(found["accepted"])


def _near_misses(found: dict[str, Any]) -> str:
    share = found["accepted"]
    return (
        f"<p>{share['count']} of {share['of']} accepted: {percent(share['rate'])} (95 %: {_span(share)})</p>"
        + _accepted(found["lines"])
    )


def _accepted(lines: Sequence[dict[str, Any]]) -> str:
    """What was accepted though it should not have been."""
    if not lines:
        return '<p class="good">None was accepted.</p>'
    rows = [
        (
            f"{line['confidence']:.2f}",
            escape(line["text"] or ""),
            escape(" ".join(str(value) for value in line["said"].values())),
            f'<span class="file">{escape(_tail(line["file"]))}</span>',
        )
        for line in lines[:_MOST_LINES]
    ]
    more = f"<p><small>and {len(lines) - _MOST_LINES} more</small></p>" if len(lines) > _MOST_LINES else ""
    table = _table(("confidence", "understood", "labelled", "recording"), rows, hidden=(2,))
    opened = " open" if len(lines) <= 10 else ""
    return f"<details{opened}><summary>{len(lines)} accepted</summary>{table}{more}</details>"


def _tail(path: str) -> str:
    return "/".join(path.rstrip("/").split("/")[-2:])


def _latency(stages: dict[str, dict[str, float]]) -> str:
    names = ["median" if name == "p50" else name.replace("p", "") + " %" if name != "max" else name
             for name in next(iter(stages.values()))]  # fmt: skip
    rows = [
        (stage, *(f"{value:.{value < 100:d}f}" for value in values.values()))
        for stage, values in stages.items()
    ]
    return _table(("", *names), rows, numbers=range(1, len(names) + 1))


def _confusions(found: Sequence[dict[str, Any]]) -> str:
    if not found:
        return '<p class="good">None.</p>'
    rows = [
        (
            str(each["count"]),
            f"<small>{escape(each['what'])}</small>",
            escape(each["said"]),
            escape(each["understood"] or "—"),
            _count(each["accepted"]),
        )
        for each in found[:_MOST_LINES]
    ]
    head = ("times", "", "said", "understood", "accepted")
    rest = _table(head, rows[_FIRST_LINES:], numbers=(0, 4)) if len(rows) > _FIRST_LINES else ""
    more = f"<details><summary>{len(rows) - _FIRST_LINES} more</summary>{rest}</details>" if rest else ""
    return _table(head, rows[:_FIRST_LINES], numbers=(0, 4)) + more


def _errors(errors: Sequence[dict[str, Any]]) -> str:
    return _table(
        ("", "condition"), [(escape(str(each["error"])), escape(each["condition"])) for each in errors]
    )


def _comparison(models: Sequence[dict[str, Any]]) -> str:
    rows = []
    for model in models:
        noisy, false, near = model["all_noises"], model["false_accepts"], model["near_misses"]
        total = model["latency_ms"].get("total")
        rows.append(
            (
                f"<b>{escape(model['name'])}</b>",
                f"{model['size_bytes'] / 1e6:.0f} MB",
                _share_cell(model["conditions"][0]["right"]),
                _share_cell(noisy["right"]) if noisy else "-",
                number(false["utterances"]["per_hour"]) if false else "-",
                percent(near["accepted"]["rate"]) if near else "-",
                f"{total['p50']:.0f} ms" if total else "-",
                f"{model['peak_memory_bytes'] / 1e6:.0f} MB",
            )
        )
    head = ("", "size", "clean", "in noise", "false an hour", "near misses", "median", "memory")
    return _table(head, rows, numbers=range(1, 8), hidden=(1, 7))


def _about(summary: dict[str, Any]) -> str:
    machine, grammar = summary["machine"], summary["grammar"]
    threads = f"{summary['threads']} of recognition, {summary['jobs']} recordings at once"
    lines = [
        ("command", f"<code>{escape(summary['command'])}</code>"),
        ("date", escape(summary["date"])),
        ("machine", escape(f"{machine['processor']} ({machine['architecture']}, {machine['cores']} cores)")),
        ("system", escape(machine["system"])),
        ("threads", threads),
        ("threshold", f"{summary['min_confidence']:g}"),
        ("seed", str(summary["seed"])),
        ("grammar", f"{escape(grammar['file'])}<br><small>SHA-256 {grammar['sha256']}</small>"),
        ("edgevoice", escape(f"{summary['edgevoice']}, whisper.cpp {summary['whisper_cpp']}")),
        ("python", escape(summary["python"])),
    ]
    for model in summary["models"]:
        size = f"{model['size_bytes'] / 1e6:.0f} MB, real-time factor {number(model['real_time_factor'])}"
        text = f"{size}<br><small>SHA-256 {model['sha256']}</small>"
        lines.append((f"model {escape(model['name'])}", text))
    terms = "".join(f"<dt>{name}</dt><dd>{value}</dd>\n" for name, value in lines)
    return f'<h2>How it was measured</h2>\n<div class="card"><dl>\n{terms}</dl></div>\n'


def _span(share: dict[str, Any]) -> str:
    return f"{100 * share['low']:.1f} to {100 * share['high']:.1f}"
