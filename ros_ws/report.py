"""A web page about a recorded run: one file, pictures inside."""

import base64
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from horseshoe import configuration
from horseshoe.hardware.timing_log import measure_delay
from horseshoe.ros_ws.bag import ARMS, Run, Series, read

Array = NDArray[np.float64]
GAP = 0.5  # [s] without servo targets that separates two stretches of motion
COLOURS = {"left": "tab:blue", "right": "tab:orange"}


def write_report(bag: Path, output: Path, video: bool = False, cell: Path | None = None) -> Path:
    """Write the page, and beside it a video if asked.

    Args:
        bag: folder of the bag.
        output: HTML file.
        video: whether to draw the run.
        cell: for the video, where the arms stood; the shipped cell without it.

    Returns:
        The HTML file.

    Raises:
        HorseshoeError: the bag cannot be read.
    """
    import jinja2

    run = read(bag)
    film = output.with_suffix(".mp4")
    if video:
        from horseshoe.ros_ws.film import save_film

        save_film(run, film, cell)
    starts = [s.time[0] for s in run.measured.values() if len(s.time)]
    ends = [s.time[-1] for s in run.measured.values() if len(s.time)]
    begin, end = min(starts, default=0.0), max(ends, default=0.0)
    numbers, note = _numbers(run)
    template = jinja2.Environment(autoescape=True).from_string(
        configuration.resource("ros_ws/report.html.j2").read_text(encoding="utf-8")
    )
    page = template.render(
        name=bag.resolve().name,
        when=time.strftime("%Y-%m-%d %H:%M", time.localtime(begin)),
        duration=end - begin,
        outcomes=run.outcomes,
        successes=sum(o["name"] == "success" for o in run.outcomes),
        numbers=numbers,
        delay_note=note,
        pictures=[(title, _picture(draw, run, begin)) for title, draw in PICTURES],
        video=film.name if film.exists() else "",
        lines=[(t - begin, topic, text) for t, topic, text in run.lines],
        contract=run.contract,
    )
    configuration.write_atomically(output, page)
    return output


def stretches(times: Array, gap: float = GAP) -> list[tuple[float, float]]:
    """Begin and end of every stretch of `times` (n,) without a gap [s]."""
    if not len(times):
        return []
    cuts = np.flatnonzero(np.diff(times) > gap)
    return list(zip(times[np.append(0, cuts + 1)], times[np.append(cuts, len(times) - 1)], strict=True))


def delays(run: Run, arm: str) -> list[float]:
    """Delay from a servo target to its motion, in every stretch with enough motion to tell [s]."""
    found = []
    for begin, end in stretches(run.sent[arm].time):
        part = Run({arm: run.measured[arm].between(begin, end)}, {arm: run.sent[arm].between(begin, end)})
        try:
            found.append(measure_delay(part.timing_of(arm)))
        except ValueError:
            continue
    return found


def tracking(run: Run, arm: str) -> Series:
    """Measured minus sent joints while targets are sent [rad], shape (n, 6)."""
    sent, measured = run.sent[arm], run.measured[arm]
    if len(sent.time) < 2:
        return Series(np.zeros(0), np.zeros((0, 6)))
    inside = np.zeros(len(measured.time), dtype=bool)
    for begin, end in stretches(sent.time):
        inside |= (measured.time >= begin) & (measured.time <= end)
    when = measured.time[inside]
    target = np.stack([np.interp(when, sent.time, sent.values[:, j]) for j in range(6)], 1)
    return Series(when, measured.values[inside, :6] - target)


def intervals(times: Array) -> Array:
    """Time between neighbours within a stretch [s]."""
    gaps = np.diff(times)
    return gaps[gaps < GAP]


def _numbers(run: Run) -> tuple[list[list[str]], str]:
    rows = [["", *ARMS]]

    def row(name: str, value: Callable[[str], str]) -> None:
        rows.append([name, *(value(arm) for arm in ARMS)])

    def percentiles(values: Array, scale: float, unit: str) -> str:
        if not values.size:
            return "-"
        p50, p99 = np.percentile(values, [50, 99]) * scale
        return f"{p50:.2f} / {p99:.2f} / {values.max() * scale:.2f} {unit}"

    row("servo targets recorded", lambda a: str(len(run.sent[a].time)))
    row("interval p50 / p99 / max", lambda a: percentiles(intervals(run.sent[a].time), 1000, "ms"))
    row("tracking error p50 / p99 / max", lambda a: percentiles(np.abs(tracking(run, a).values), 1000, "mrad"))
    row("decisions", lambda a: str(len(run.commands[a])))
    row("command age in the bag p50 / p99 / max", lambda a: percentiles(_ages(run, a), 1000, "ms"))
    row("delay measured before", lambda a: f"{1000 * run.delays[a]:.0f} ms" if a in run.delays else "-")
    row("delay while it worked", lambda a: ", ".join(f"{1000 * d:.0f}" for d in delays(run, a)) + " ms")
    skew = run.timing.values[:, 3] if len(run.timing.time) else np.zeros(0)
    rows.append(["skew between arms p50 / p99 / max", percentiles(skew, 1000, "ms"), ""])
    compute = run.timing.values[:, 4] if len(run.timing.time) else np.zeros(0)
    rows.append(["time to decide p50 / p99 / max", percentiles(compute, 1000, "ms"), ""])
    contract = yaml.safe_load(run.contract) if run.contract else {}
    if not contract:
        return rows, ""
    low, high = contract["delay"]
    lag = contract["environment"].get("physics", {}).get("servo_lag", [0.0, 0.0])
    return rows, (
        f"Trained with a transport delay of {1000 * low:.0f} to {1000 * high:.0f} ms and a servo lag of "
        f"{1000 * lag[0]:.0f} to {1000 * lag[1]:.0f} ms; the delays above are both together."
    )


def _ages(run: Run, arm: str) -> Array:
    commands = run.commands[arm]
    return commands[:, 1] - commands[:, 0] if len(commands) else np.zeros(0)


def _picture(draw: Callable[[Any, Run, float], None], run: Run, begin: float) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.2), layout="constrained")
    draw(figure, run, begin)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=100, format="png")
    return base64.b64encode(buffer.getvalue()).decode()


def _draw_tracking(figure: Any, run: Run, begin: float) -> None:
    for axes, arm in zip(figure.subplots(1, 2, sharey=True), ARMS, strict=True):
        error = tracking(run, arm)
        axes.plot(error.time - begin, 1000 * error.values, linewidth=0.7)
        axes.set(title=f"{arm}: measured - sent", xlabel="s", ylabel="mrad")


def _draw_joints(figure: Any, run: Run, begin: float) -> None:
    for axes, arm in zip(figure.subplots(1, 2, sharey=True), ARMS, strict=True):
        measured = run.measured[arm]
        axes.plot(
            measured.time - begin, measured.values[:, :6], linewidth=0.8, label=[f"joint{i}" for i in range(1, 7)]
        )
        axes.set(title=f"{arm}: measured joints", xlabel="s", ylabel="rad")
    axes.legend(fontsize="small", loc="upper right")


def _draw_delay(figure: Any, run: Run, begin: float) -> None:
    left, right = figure.subplots(1, 2)
    values = {arm: 1000 * np.array(delays(run, arm)) for arm in ARMS}
    both = np.concatenate(list(values.values()))
    bins = np.linspace(0, max(both.max() if both.size else 0, 50) * 1.1, 25)
    for arm in ARMS:
        left.hist(values[arm], bins, alpha=0.6, color=COLOURS[arm], label=arm)
        right.hist(1000 * _ages(run, arm), 40, alpha=0.6, color=COLOURS[arm], label=arm)
    left.set(title="servo target to motion", xlabel="ms", ylabel="stretches")
    right.set(title="age of commands on arrival", xlabel="ms", ylabel="decisions")
    left.legend(loc="upper right")


def _draw_jitter(figure: Any, run: Run, begin: float) -> None:
    left, right = figure.subplots(1, 2)
    for arm in ARMS:
        left.hist(1000 * intervals(run.sent[arm].time), 80, alpha=0.6, color=COLOURS[arm], label=arm, log=True)
    left.set(title="interval of servo targets", xlabel="ms")
    left.legend(loc="upper right")
    if len(run.timing.time):
        right.plot(run.timing.time - begin, 1000 * run.timing.values[:, 3], ".", markersize=3)
    right.set(title="skew between the arms' measurements", xlabel="s", ylabel="ms")


def _draw_ages(figure: Any, run: Run, begin: float) -> None:
    axes = figure.subplots()
    if len(run.timing.time):
        for k, name in enumerate(("left joints", "right joints", "blocks")):
            axes.plot(run.timing.time - begin, 1000 * run.timing.values[:, k], ".", markersize=3, label=name)
        axes.legend(loc="upper right")
    axes.set(title="age of what a decision saw", xlabel="s", ylabel="ms")


PICTURES = (
    ("Joints", _draw_joints),
    ("Tracking", _draw_tracking),
    ("Delay", _draw_delay),
    ("Jitter and skew", _draw_jitter),
    ("Ages", _draw_ages),
)
