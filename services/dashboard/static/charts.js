// Keeps the charts of a job's page: holds their data, takes in what events bring, and draws again when data or colour scheme change.

import { fitness, fitnessWords, front, frontWords, lossCurve, lossWords, probeCurves, probeWords, scatter, scatterWords } from "./plots.js";

export class Charts {
  #job;
  #data;
  #drawn = new Map();
  #scheduled = false;

  /** `job`: what the page embeds; later events are told to `addEpoch` and `addGeneration`. */
  constructor(job) {
    this.#job = job;
    this.#data = job.charts;
    window.Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
    this.#draw();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw());
  }

  /** An epoch's event; one that is there already is replaced. */
  addEpoch({ epoch, loss, probe }) {
    const kept = this.#data.epochs.filter((point) => point.epoch !== epoch);
    if (Object.keys(probe ?? {}).length)
      this.#data.probes = [...this.#data.probes.filter((point) => point.epoch !== epoch), { epoch, accuracy: probe }];
    this.#data.epochs = [...kept, { epoch, loss: Number.isFinite(loss) ? loss : null }].sort((a, b) => a.epoch - b.epoch);
    this.#schedule();
  }

  /** A generation's event and its evaluated candidates; one that is there already is replaced. */
  addGeneration(event, items) {
    const data = this.#data;
    const number = event.generation;
    const known = data.generations.some((point) => point.number === number);
    const shown = items.map((item) => ({ ...item, value: this.#value(item.fitness) }));
    const values = shown.map((item) => item.value).filter((value) => value !== null);
    const spread = values.length
      ? { least: Math.min(...values), mean: values.reduce((a, b) => a + b) / values.length, most: Math.max(...values) }
      : { least: null, mean: null, most: null };
    const reached = this.#value(event.best_fitness);
    const point = { number, best: reached, accuracy: event.best_accuracy, ...spread };
    data.generations = [...data.generations.filter((p) => p.number !== number), point].sort((a, b) => a.number - b.number);
    data.candidates = data.candidates.filter((candidate) => candidate.generation !== number).concat(shown);
    if (data.candidates.length > 2 * data.limit) data.candidates = data.candidates.filter((_, i) => i % 2 === 0);
    if (!known) data.total += event.evaluated + event.from_cache;
    const best = { value: reached, accuracy: event.best_accuracy, parameters: event.best_parameters };
    if (data.best?.value !== best.value || data.best?.parameters !== best.parameters) {
      const found = shown.find((item) => item.value === best.value && item.parameters === best.parameters);
      data.best = found ?? { ...best, generation: number, operator: "" };
    }
    this.#schedule();
  }

  /** The front of a job with a second objective, as the API tells it. */
  setFront(items) {
    this.#data.front = items.map((item) => ({ ...item, value: this.#value(item.fitness), second: item.second_accuracy }));
    this.#schedule();
  }

  /** The metric's own value of a fitness, of which more is always better; null where none was measured. */
  #value(fitness) {
    return fitness <= -Number.MAX_VALUE ? null : fitness * this.#job.sign;
  }

  #schedule() {
    if (this.#scheduled) return;
    this.#scheduled = true;
    requestAnimationFrame(() => {
      this.#scheduled = false;
      this.#draw();
    });
  }

  #draw() {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    const over = !["queued", "running", "paused"].includes(this.#job.state);
    const { generations, epochs, probes, candidates } = this.#data;
    const none = over ? "The job ended before there was anything to draw." : "Appears after the first generation.";
    this.#show(
      "fitness",
      generations.length,
      none,
      () => fitness(this.#data, this.#job, colour),
      () => fitnessWords(this.#data, this.#job),
    );
    this.#show(
      "loss",
      epochs.length,
      over ? none : "Appears after the first epoch.",
      () => lossCurve(this.#data, colour),
      () => lossWords(this.#data, this.#job),
    );
    this.#show(
      "probe",
      probes.length,
      over ? "No subnets were probed." : "Appears after an eighth of the supernet's training.",
      () => probeCurves(this.#data, colour),
      () => probeWords(this.#data),
    );
    this.#show(
      "scatter",
      candidates.length,
      none,
      () => scatter(this.#data, this.#job, colour),
      () => scatterWords(this.#data, this.#job),
    );
    if (!this.#job.second) return;
    this.#show(
      "front",
      this.#data.front.length,
      none,
      () => front(this.#data, this.#job, colour),
      () => frontWords(this.#data, this.#job),
    );
  }

  #show(id, filled, placeholder, config, words) {
    const canvas = document.getElementById(id);
    const note = canvas.parentElement.querySelector(".placeholder");
    canvas.hidden = !filled;
    note.hidden = Boolean(filled);
    note.textContent = placeholder;
    document.getElementById(`${id}-summary`).textContent = filled ? words() : "";
    if (!filled) return;
    const chart = this.#drawn.get(id);
    const { type, data, options, plugins } = config();
    if (!chart) {
      this.#drawn.set(id, new window.Chart(canvas, { type, data, options, plugins }));
      return;
    }
    // Datasets that the reader has switched off in the legend stay off.
    data.datasets.forEach((set, i) => (set.hidden = !chart.isDatasetVisible(i)));
    chart.data = data;
    chart.options = options;
    chart.update("none");
  }
}
