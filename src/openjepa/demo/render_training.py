"""The training of a run as HTML: progress in words, the newest verdict, and the curves of its report."""

from __future__ import annotations

from openjepa.demo.render import escaped, page
from openjepa.demo.training import TrainingState
from openjepa.pages.parts.document import colours, style_sheet
from openjepa.pages.run.curves import curves
from openjepa.pages.run.verdict import verdict


def styles() -> str:
    """The style sheets of charts and verdicts within this page, in its light and dark colours."""
    light, dark = colours()
    card = "--card: var(--background-fill-secondary);"
    sheets = [style_sheet("openjepa.pages.parts", "chart.css"), style_sheet("openjepa.pages.run", "report.css")]
    return (
        f".oj {{ {light} {card} }} .dark .oj {{ {dark} {card} }} .gradio-container .oj .report {{ {''.join(sheets)} }}"
    )


def progress(state: TrainingState) -> str:
    """Steps done, speed and the time left, in words."""
    logs = state.logs
    done = min(1.0, logs.step / max(1, logs.total_steps))
    facts = [f"Step <b>{logs.step:,}</b> of {logs.total_steps:,}"]
    if state.tokens_per_s is not None:
        facts.append(f"{state.tokens_per_s:,.0f} tokens/s")
    if logs.finished:
        facts.append("training has ended")
    elif state.may_have_stopped:
        facts.append(f"no log line for {duration(state.silent_s or 0)}: training may have stopped")
    elif state.left_s is not None:
        facts.append(f"about {duration(state.left_s)} left")
    else:
        facts.append("waiting for log lines")
    return page(
        f'<div class="bar-of" role="img" aria-label="{done:.0%} done"><i style="width:{100 * done:.1f}%"></i></div>',
        f'<p role="status">{", ".join(facts)}.</p>',
    )


def charts(state: TrainingState) -> str:
    """The verdict and all curves of a run's report; without a log line, a sentence that says so."""
    return page(f'<div class="report">{verdict(state.logs, state.advice)}{curves(state.logs)}</div>')


def unreadable(message: str) -> str:
    """A run folder that cannot be read (any more)."""
    return page(f'<p role="status">The log files cannot be read: {escaped(message)}</p>')


def duration(seconds: float) -> str:
    """A time in its two largest units: 50 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minute} min"
    return f"{minutes} min {second} s" if minutes else f"{second} s"
