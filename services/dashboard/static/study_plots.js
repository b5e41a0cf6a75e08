// The charts of a study's page: what each trial reached against a swept setting, and trials' curves over generations and epochs.

import { axis, inWords, options } from "./plots.js";

const TONES = ["accent", "seed", "mutation", "star", "random", "good", "budget", "muted"];
const DASHES = [[], [6, 4], [2, 3]];
const MARKS = { succeeded: "circle", stopped: "crossRot", failed: "crossRot", cancelled: "crossRot" };
const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));
const named = (trial) => `Trial ${trial.number}: ${Object.entries(trial.settings).map(([name, value]) => `${name.split(".").at(-1)} ${text(value)}`).join(", ")}`;

export class StudyCharts {
  #study;
  #drawn = new Map();
  #shown = "";
  #select = document.getElementById("setting");

  /** `study`: what the page embeds. */
  constructor(study) {
    window.Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
    this.#select.addEventListener("change", () => this.#draw());
    this.#select.closest(".pick").hidden = study.swept.length < 2;
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw());
    this.show(study);
  }

  /** Draw what is new. */
  show(study) {
    const fresh = JSON.stringify(study);
    if (fresh === this.#shown) return;
    this.#shown = fresh;
    this.#study = study;
    this.#draw();
  }

  #draw() {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    const study = this.#study;
    const done = study.trials.filter((trial) => trial.best !== null);
    const over = ["succeeded", "failed", "cancelled"].includes(study.state);
    const later = (what) => (over ? "The study ended before there was anything to draw." : `Appears after the first ${what}.`);
    this.#put("settings", done.length, later("generation"), () => against(study, done, this.#select.value, colour), () => best(study, done));
    const curves = (kind) => Object.keys(study[kind]).length;
    this.#put("fitness", curves("fitness"), later("generation"), () => lines(study, "fitness", colour), () => counted(study, "fitness"));
    this.#put("probes", curves("probes"), later("probe of a supernet in training"), () => lines(study, "probes", colour), () => counted(study, "probes"));
  }

  #put(id, filled, placeholder, config, words) {
    const canvas = document.getElementById(id);
    const note = canvas.parentElement.querySelector(".placeholder");
    canvas.hidden = !filled;
    note.hidden = Boolean(filled);
    note.textContent = placeholder;
    document.getElementById(`${id}-summary`).textContent = filled ? words() : "";
    this.#drawn.get(id)?.destroy();
    this.#drawn.delete(id);
    if (filled) this.#drawn.set(id, new window.Chart(canvas, config()));
  }
}

/** Numbers on a line, a logarithmic one where they differ tenfold, never below zero where none is; anything else as names side by side. */
function scale(values, name) {
  if (!values.every((value) => typeof value === "number")) {
    return { type: "category", labels: [...new Set(values.map(text))], name, offset: true };
  }
  const [least, most] = [Math.min(...values), Math.max(...values)];
  if (least > 0 && most / least >= 10) return { type: "logarithmic", name, min: least / 1.5, max: most * 1.5 };
  const room = (most - least || Math.abs(most) || 1) * 0.06;
  return { type: "linear", name, min: least < 0 ? least - room : Math.max(0, least - room), max: most + room };
}

function against(study, done, setting, colour) {
  const x = scale(done.map((trial) => trial.settings[setting]), setting);
  const place = (trial) => (x.type === "category" ? text(trial.settings[setting]) : trial.settings[setting]);
  const points = (trials) => trials.map((trial) => ({ x: place(trial), y: trial.best, trial }));
  const mark = { pointRadius: 5, pointHoverRadius: 7, borderWidth: 2 };
  const set = (label, states, tone) => ({
    ...mark,
    label,
    data: points(done.filter((trial) => states.includes(trial.state))),
    borderColor: colour(tone),
    backgroundColor: `color-mix(in srgb, ${colour(tone)} 45%, transparent)`,
    pointStyle: MARKS[states[0]] ?? "triangle",
  });
  const sets = [
    set("succeeded", ["succeeded"], "accent"),
    set("stopped, failed or cancelled", ["stopped", "failed", "cancelled"], "budget"),
    set("not over", ["waiting", "queued", "running", "paused"], "mutation"),
  ].filter((shown) => shown.data.length);
  const winner = done.filter((trial) => trial.number === study.best);
  if (winner.length) {
    const ring = { pointRadius: 10, pointHoverRadius: 10, borderWidth: 2.5, borderColor: colour("star"), backgroundColor: "transparent" };
    sets.push({ ...ring, label: "best", data: points(winner), pointStyle: "circle", order: -1 });
  }
  return {
    type: "scatter",
    data: { datasets: sets },
    options: options(colour, x, axis(study), { tooltip: { label: (item) => `${named(item.raw.trial)}: ${inWords(study, item.raw.y)}` } }),
  };
}

function lines(study, kind, colour) {
  const trials = study.trials.filter((trial) => study[kind][trial.number]);
  const sets = trials.map((trial, i) => {
    const tone = colour(TONES[i % TONES.length]);
    return {
      label: `Trial ${trial.number}`,
      trial,
      data: study[kind][trial.number].map(([x, y]) => ({ x, y })),
      borderColor: tone,
      backgroundColor: tone,
      borderDash: DASHES[Math.floor(i / TONES.length) % DASHES.length],
      borderWidth: trial.number === study.best ? 3.5 : 1.75,
      pointRadius: study[kind][trial.number].length > 30 ? 0 : 2.5,
      pointHitRadius: 8,
      pointStyle: "line",
      clip: 8,
    };
  });
  const epochs = kind === "probes";
  const value = (y) => (epochs ? y.toPrecision(3) : inWords(study, y));
  return {
    type: "line",
    data: { datasets: sets },
    options: options(
      colour,
      { name: epochs ? "Epoch" : "Generation", min: epochs ? undefined : 1, suggestedMax: 2, ticks: { precision: 0 } },
      epochs ? { name: "Mean loss (nats)" } : axis(study),
      { legend: sets.length <= 12, tooltip: { label: (item) => `${named(item.dataset.trial)}: ${value(item.parsed.y)}` } },
    ),
  };
}

function best(study, done) {
  const winner = study.trials.find((trial) => trial.number === study.best);
  const reached = done.length === 1 ? "1 trial has" : `${done.length} trials have`;
  return `${reached} reached something so far.` + (winner ? ` Best: ${named(winner)}, ${inWords(study, winner.best)}.` : "");
}

function counted(study, kind) {
  const shown = Object.keys(study[kind]).length;
  const stopped = study.trials.filter((trial) => trial.stopped_at !== null && trial.state === "stopped").length;
  return `${shown} of ${study.trials.length} trials${kind === "probes" && stopped ? `, ${stopped} of the study stopped early` : ""}.`;
}
