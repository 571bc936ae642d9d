"""Segments of a log as moving drawings, and the page on which a person compares two of them."""

import html
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from headwater.datasets.dataset import Dataset
from headwater.environments.environment import AbstractDrawable

Clip = dict[str, Any]
"""What the page draws of a segment, as values that JSON can hold."""
_MOST_COMPONENTS = 8
"""So many components of observations and of actions are drawn as curves."""


def clips_of(dataset: Dataset, task: Any = None) -> Callable[[int, int], Clip]:
    """What draws a segment, given the row in which it begins and its length.

    A task that can be drawn from what is observed in it is (one picture for each step); of any
    other log the observations and actions are drawn as curves over time.

    **Arguments:** `task`: the environment that the log is of, if it is known.
    """
    if isinstance(task, AbstractDrawable):
        drawn = task
        sketch = jax.jit(jax.vmap(lambda seen: drawn.sketch(drawn.observed(seen))))

        def pictures(begin: int, length: int) -> Clip:
            shapes = sketch(jnp.asarray(dataset.observations[begin : begin + length]))
            return {
                "view": [float(edge) for edge in drawn.view],
                **{name: _plain(shape) for name, shape in shapes._asdict().items()},
            }

        return pictures
    actions = dataset.raw_actions().reshape(dataset.size, -1)

    def curves(begin: int, length: int) -> Clip:
        rows = slice(begin, begin + length)
        return {
            "observations": _plain(dataset.observations[rows, :_MOST_COMPONENTS].T),
            "actions": _plain(actions[rows, :_MOST_COMPONENTS].T),
        }

    return curves


def _plain(values: Any) -> list:
    """Nested lists; what is no number (an action that is missing) becomes `None`."""
    found = np.asarray(values, np.float64)
    rounded = np.round(found, 4).astype(object)
    rounded[~np.isfinite(found)] = None
    return rounded.tolist()


def comparison_page(title: str, token: str) -> str:
    """The page, which asks the server for pairs and sends it the answers.

    **Arguments:** `title`: what is compared; `token`: that every answer has to carry.
    """
    return _PAGE.replace("TITLE", html.escape(title)).replace("TOKEN", html.escape(token))


_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Which is better?</title>
<meta name="token" content="TOKEN">
<style>
body { font: 16px system-ui, sans-serif; margin: 2em auto; max-width: 60em; color: #222; }
#pair { display: flex; gap: 2em; }
figure { margin: 0; flex: 1; }
canvas { width: 100%; border: 2px solid #bbb; background: #fff; }
button { font: inherit; padding: .4em 1em; margin: .5em .5em 0 0; }
kbd { border: 1px solid #bbb; border-radius: 3px; padding: 0 .3em; }
#message { min-height: 1.5em; color: #a00; }
</style></head><body>
<h1>Which is better?</h1>
<p>TITLE. <span id="progress"></span></p>
<div id="pair">
<figure><canvas id="first" width="440" height="440"></canvas>
<button data-answer="first"><kbd>&larr;</kbd> left is better</button></figure>
<figure><canvas id="second" width="440" height="440"></canvas>
<button data-answer="second"><kbd>&rarr;</kbd> right is better</button></figure>
</div>
<p><button data-answer="equal"><kbd>=</kbd> as good as each other</button>
<button data-answer="skip"><kbd>space</kbd> skip</button></p>
<p id="message" role="status"></p>
<script>
"use strict";
const token = document.querySelector("meta[name=token]").content;
const keys = { ArrowLeft: "first", ArrowRight: "second", "=": "equal", " ": "skip" };
const colours = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000", "#999"];
let current = null, waiting = true, frame = 0;
const say = text => { document.getElementById("message").textContent = text; };

function show(found) {
  current = found; waiting = false; frame = 0;
  document.body.dataset.number = found.number;
  const done = found.first === undefined;
  document.getElementById("progress").textContent = `${found.number} of ${found.pairs} answered.`;
  document.body.dataset.done = done;
  if (done) {
    document.getElementById("pair").remove();
    say("All pairs are answered. You can close this page.");
  }
}

async function ask(path, options) {
  waiting = true;
  try {
    const reply = await fetch(path, options);
    const found = await reply.json();
    if (!reply.ok) { say(found.error); waiting = false; return; }
    say("");
    show(found);
  } catch (error) {
    say("The server does not answer: start the command again, and reload this page.");
    waiting = false;
  }
}

function answer(what) {
  if (waiting || current === null || current.first === undefined) return;
  ask("answer", {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-Token": token },
    body: JSON.stringify({ number: current.number, answer: what }),
  });
}

document.addEventListener("keydown", event => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  if (keys[event.key] !== undefined) { event.preventDefault(); answer(keys[event.key]); }
});
for (const button of document.querySelectorAll("button"))
  button.addEventListener("click", () => { button.blur(); answer(button.dataset.answer); });

function picture(pen, clip, step) {
  const [left, right, low, high] = clip.view, size = pen.canvas.width;
  const scale = size / Math.max(right - left, high - low);
  const x = v => (v - (left + right) / 2) * scale + size / 2;
  const y = v => size / 2 - (v - (low + high) / 2) * scale;
  pen.lineWidth = 3;
  pen.strokeStyle = "#444";
  for (const [from, to] of clip.lines[step]) {
    pen.beginPath(); pen.moveTo(x(from[0]), y(from[1])); pen.lineTo(x(to[0]), y(to[1]));
    pen.stroke();
  }
  for (const [name, fill] of [["discs", true], ["rings", false]])
    for (const [a, b, radius] of clip[name][step]) {
      pen.beginPath(); pen.arc(x(a), y(b), radius * scale, 0, 7);
      pen.fillStyle = colours[0];
      if (fill) pen.fill(); else pen.stroke();
    }
}

function curves(pen, clip, step) {
  const size = pen.canvas.width, half = size / 2;
  for (const [rows, top, label] of
       [[clip.observations, 0, "observations"], [clip.actions, half, "actions"]]) {
    pen.fillStyle = "#444"; pen.font = "14px sans-serif"; pen.fillText(label, 6, top + 16);
    const seen = rows.flat().filter(v => v !== null);
    const low = Math.min(...seen), width = Math.max(...seen) - low || 1;
    rows.forEach((row, i) => {
      pen.strokeStyle = colours[i % colours.length]; pen.lineWidth = 2; pen.beginPath();
      row.forEach((v, t) => {
        if (v === null) return;
        const x = size * t / Math.max(row.length - 1, 1);
        const y = top + half - 10 - (half - 40) * (v - low) / width;
        if (t === 0 || row[t - 1] === null) pen.moveTo(x, y); else pen.lineTo(x, y);
      });
      pen.stroke();
    });
    const at = size * step / Math.max(rows[0].length - 1, 1);
    pen.strokeStyle = "#bbb"; pen.beginPath(); pen.moveTo(at, top + 22);
    pen.lineTo(at, top + half - 4); pen.stroke();
  }
}

setInterval(() => {
  if (current === null || current.first === undefined) return;
  for (const name of ["first", "second"]) {
    const pen = document.getElementById(name).getContext("2d"), clip = current[name];
    pen.clearRect(0, 0, pen.canvas.width, pen.canvas.height);
    // Both begin together, and rest for a moment at their end.
    const step = Math.min(frame % (current.length + 10), current.length - 1);
    if (clip.view) picture(pen, clip, step); else curves(pen, clip, step);
  }
  frame += 1;
}, 60);
ask("pair");
</script></body></html>
"""
