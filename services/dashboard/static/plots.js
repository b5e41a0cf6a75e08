// What each chart of a job's page looks like and says: pure functions from its data to a Chart.js configuration and to a summary in words.
// Colours come from the stylesheet by name, through the `colour` argument.

const OPERATORS = { seed: "rectRot", random: "circle", crossover: "triangle", mutation: "rect" };
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const digits = new Intl.NumberFormat("en", { minimumSignificantDigits: 3, maximumSignificantDigits: 3 });
const percent = (value) => `${(value * 100).toFixed(1)}%`;
const tick = (value) => `${+(value * 100).toFixed(1)}%`;
// The metric that a job searches for: shares in percent, others as they are, and what is not measured as a dash.
export const inWords = (job, value) => (value === null ? "–" : job.share ? percent(value) : digits.format(value));
export const axis = (job) => ({
  name: job.metric === "accuracy" ? "Val accuracy" : `Val ${job.metric}${job.sign < 0 ? " (less is better)" : ""}`,
  ticks: job.share ? { callback: tick } : {},
});
const loss = (value) => (value === null ? "not finite" : digits.format(value));

export function options(colour, x, y, extra = {}) {
  const scale = (settings) => ({
    ...settings,
    title: { display: true, text: settings.name, color: colour("muted") },
    grid: { color: colour("line"), ...settings.grid },
    border: { display: false },
    ticks: { color: colour("muted"), maxRotation: 0, autoSkipPadding: 16, ...settings.ticks },
  });
  const labels = { color: colour("text"), usePointStyle: true, boxHeight: 7, padding: 14, ...extra.labels };
  return {
    animation: false,
    responsive: true,
    maintainAspectRatio: false,
    interaction: { mode: "nearest", intersect: true, ...extra.interaction },
    scales: { x: scale({ type: "linear", grid: { display: false }, ...x }), y: scale(y) },
    plugins: {
      legend: { display: extra.legend ?? true, position: "bottom", labels },
      tooltip: { callbacks: extra.tooltip ?? {} },
    },
  };
}

export function fitness({ generations }, job, colour) {
  const line = (label, key, style) => ({
    label,
    data: generations.map((g) => ({ x: g.number + 1, y: g[key] })),
    borderWidth: 2,
    pointRadius: 0,
    pointHitRadius: 8,
    pointStyle: "line",
    spanGaps: true,
    clip: 8,
    ...style,
  });
  const edge = { borderWidth: 0, borderColor: "transparent" };
  return {
    type: "line",
    data: {
      datasets: [
        line("Best so far", "best", {
          borderColor: colour("accent"),
          backgroundColor: colour("accent"),
          borderWidth: 2.5,
          pointRadius: generations.length > 60 ? 0 : 3,
          pointStyle: "circle",
        }),
        line("Population mean", "mean", { borderColor: colour("random"), borderDash: [5, 4] }),
        line("Lowest", "least", edge),
        line("Population range", "most", {
          ...edge,
          fill: "-1",
          backgroundColor: colour("band"),
          pointBackgroundColor: `color-mix(in srgb, ${colour("accent")} 35%, transparent)`,
          pointStyle: "rect",
        }),
      ],
    },
    options: options(
      colour,
      { name: "Generation", min: 1, suggestedMax: 2, ticks: { precision: 0 } },
      axis(job),
      {
        interaction: { mode: "index", intersect: false },
        labels: { filter: (item) => item.text !== "Lowest" },
        tooltip: {
          title: (items) => `Generation ${items[0].parsed.x}`,
          label: (item) =>
            `${item.dataset.label === "Population range" ? "Highest" : item.dataset.label}: ${inWords(job, item.parsed.y)}`,
        },
      },
    ),
  };
}

export function lossCurve({ epochs }, colour) {
  const points = epochs.map((point) => ({ x: point.epoch, y: point.loss }));
  const style = {
    borderColor: colour("accent"),
    backgroundColor: colour("accent"),
    borderWidth: 2.5,
    pointRadius: epochs.length > 60 ? 0 : 2.5,
    pointHitRadius: 8,
    clip: 8,
  };
  return {
    type: "line",
    data: { datasets: [{ label: "Loss", data: points, ...style }] },
    options: options(
      colour,
      { name: "Epoch", min: 1, suggestedMax: 2, ticks: { precision: 0 } },
      { name: "Mean loss (nats)" },
      {
        legend: false,
        interaction: { mode: "index", intersect: false },
        tooltip: { title: (items) => `Epoch ${items[0].parsed.x}`, label: (item) => `Loss ${loss(item.parsed.y)}` },
      },
    ),
  };
}

const PROBED = { largest: ["accent", []], lora: ["star", []], smallest: ["muted", [2, 3]] };

export function probeCurves({ probes }, colour) {
  const sets = Object.keys(probes.at(-1).accuracy).map((name) => {
    const [tone, borderDash] = PROBED[name] ?? ["random", [5, 4]];
    return {
      label: name,
      data: probes.map((point) => ({ x: point.epoch, y: point.accuracy[name] })),
      borderColor: colour(tone),
      backgroundColor: colour(tone),
      borderDash,
      borderWidth: 2,
      pointRadius: 2.5,
      pointHitRadius: 8,
      pointStyle: "line",
      clip: 8,
    };
  });
  return {
    type: "line",
    data: { datasets: sets },
    options: options(
      colour,
      { name: "Epoch", min: 1, suggestedMax: 2, ticks: { precision: 0 } },
      { name: "Val accuracy", ticks: { callback: tick } },
      {
        interaction: { mode: "index", intersect: false },
        tooltip: { title: (items) => `Epoch ${items[0].parsed.x}`, label: (item) => `${item.dataset.label}: ${percent(item.parsed.y)}` },
      },
    ),
  };
}

export function scatter({ candidates, best }, job, colour) {
  const at = (candidate) => ({ x: candidate.parameters, y: candidate.value, candidate });
  const sets = Object.entries(OPERATORS).map(([operator, pointStyle]) => ({
    label: operator,
    data: candidates.filter((c) => c.operator === operator).map(at),
    pointStyle,
    pointRadius: 3.5,
    borderWidth: 1,
    borderColor: colour(operator),
    backgroundColor: `color-mix(in srgb, ${colour(operator)} 45%, transparent)`,
  }));
  const mark = {
    pointRadius: 9,
    pointHoverRadius: 9,
    borderWidth: 2.5,
    borderColor: colour("star"),
    backgroundColor: "transparent",
    order: -1,
  };
  if (best) sets.push({ ...mark, label: "best in search", data: [at(best)], pointStyle: "circle" });
  const winner =
    job.winner && job.winner.value !== null && job.winner.source !== "search"
      ? [{ x: job.winner.parameters, y: job.winner.value, winner: job.winner }]
      : [];
  if (winner.length)
    sets.push({
      ...mark,
      label: job.winner.members ? "winner, a soup" : "winner, trained alone",
      data: winner,
      pointStyle: "circle",
      pointRadius: 7,
      pointHoverRadius: 7,
      backgroundColor: colour("star"),
    });
  const widest = Math.max(...candidates.map((c) => c.parameters));
  return {
    type: "scatter",
    data: { datasets: sets },
    options: options(
      colour,
      // A budget far beyond every candidate would squeeze them into a corner; the summary still names it.
      {
        name: "Trainable parameters",
        suggestedMax: job.budget <= 2 * widest ? job.budget * 1.02 : undefined,
        ticks: { callback: (v) => whole.format(v) },
      },
      axis(job),
      {
        tooltip: {
          label: ({ raw }) => {
            const what = raw.winner
              ? `winner: ${raw.winner.label}`
              : `${raw.candidate.operator || "candidate"}, generation ${raw.candidate.generation + 1}`;
            return `${what}: ${inWords(job, raw.y)}, ${whole.format(raw.x)} parameters`;
          },
        },
      },
    ),
    plugins: [{ id: "budget", beforeDatasetsDraw: (chart) => drawBudget(chart, job.budget) }],
  };
}

export function front({ front: points }, job, colour) {
  const data = points.map((point) => ({ x: point.second, y: point.value, point }));
  return {
    type: "scatter",
    data: {
      datasets: [
        {
          label: "Candidates that none beats in both and in parameters",
          data,
          pointRadius: 4,
          borderColor: colour("star"),
          backgroundColor: colour("star"),
        },
      ],
    },
    options: options(colour, { name: `Accuracy on a part of ${job.second}`, ticks: { callback: tick } }, axis(job), {
      tooltip: {
        label: ({ raw }) =>
          `${inWords(job, raw.y)} on val, ${percent(raw.x)} on ${job.second}, ${whole.format(raw.point.parameters)} parameters`,
      },
    }),
  };
}

export function frontWords({ front: points }, job) {
  const best = points.reduce((a, b) => (b.second > a.second ? b : a));
  return `${whole.format(points.length)} candidates. The best on ${job.second} reaches ${percent(best.second)} there and ${inWords(job, best.value)} on val, with ${whole.format(best.parameters)} parameters. What is reported of ${job.second} is measured on its other part.`;
}

function drawBudget({ ctx, chartArea, scales }, budget) {
  const x = scales.x.getPixelForValue(budget);
  if (x < chartArea.left || x > chartArea.right) return;
  ctx.save();
  ctx.strokeStyle = ctx.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--budget").trim();
  ctx.setLineDash([6, 4]);
  ctx.lineWidth = 1.5;
  ctx.beginPath();
  ctx.moveTo(x, chartArea.top);
  ctx.lineTo(x, chartArea.bottom);
  ctx.stroke();
  ctx.font = `12px ${window.Chart.defaults.font.family}`;
  ctx.textAlign = "right";
  ctx.fillText("budget", x - 6, chartArea.bottom - 8);
  ctx.restore();
}

export function fitnessWords({ generations }, job) {
  const last = generations.at(-1);
  const population =
    last.least === null
      ? ""
      : ` The last population ranges from ${inWords(job, last.least)} to ${inWords(job, last.most)}, with a mean of ${inWords(job, last.mean)}.`;
  const other = job.metric === "accuracy" ? "" : ` Its accuracy is ${percent(last.accuracy)}.`;
  const changed =
    last.best !== generations[0].best
      ? `, ${job.sign < 0 ? "down" : "up"} from ${inWords(job, generations[0].best)} in generation ${whole.format(generations[0].number + 1)}`
      : "";
  return `After generation ${whole.format(last.number + 1)} of ${whole.format(job.generations)} the best ${job.metric} is ${inWords(job, last.best)}${changed}.${other}${population}`;
}

export function lossWords({ epochs }, job) {
  const last = epochs.at(-1);
  return `Epoch ${whole.format(last.epoch)} of ${whole.format(job.epochs)}: mean loss ${loss(last.loss)}${epochs.length > 1 ? `, from ${loss(epochs[0].loss)} in epoch ${epochs[0].epoch}` : ""}.`;
}

export function probeWords({ probes }) {
  const { epoch, accuracy } = probes.at(-1);
  const found = Object.entries(accuracy).map(([name, value]) => `${name} ${percent(value)}`);
  return `Fixed subnets, scored on up to 100 validation examples along the training. After epoch ${whole.format(epoch)}: ${found.join(", ")}.`;
}

export function scatterWords({ candidates, best, total }, job) {
  const shown =
    candidates.length < total
      ? `An even sample of ${whole.format(candidates.length)} of ${whole.format(total)} candidates, with the best always among them.`
      : `All ${whole.format(total)} candidates.`;
  const found = best
    ? ` The best in the search reaches ${inWords(job, best.value)} with ${whole.format(best.parameters)} parameters; the budget is ${whole.format(job.budget)}.`
    : "";
  const winner =
    job.winner && job.winner.source !== "search"
      ? ` ${job.winner.members ? "The" : "Trained alone, the"} winner (${job.winner.label}) reaches ${inWords(job, job.winner.value)} with ${whole.format(job.winner.parameters)}${job.winner.members ? " in all, each member within the budget" : ""}.`
      : "";
  return shown + found + winner;
}
