// A job's page: draws its charts from the data embedded in the page, follows its events, and does what its buttons say.

import { Charts } from "./charts.js";
import { offerActions } from "./actions.js";
import { refresh } from "./page.js";
import { follow } from "./stream.js";

const job = JSON.parse(document.getElementById("data").textContent);
const api = `/v1/jobs/${encodeURIComponent(job.id)}`;
const charts = new Charts(job);
const connection = document.getElementById("connection");
let supernetFound = false;
let loading = Promise.resolve();
let waiting = false;

/** Fetch the changing parts of the page, at most once a second however many events arrive. */
function update() {
  if (waiting) return;
  waiting = true;
  setTimeout(() => {
    waiting = false;
    refresh(`/jobs/${encodeURIComponent(job.id)}/live`).catch(() => {});
  }, 1000);
}

function received(kind, data) {
  update();
  if (kind === "epoch") charts.addEpoch(data);
  if (kind === "generation") loading = loading.then(() => load(data));
  if (kind === "supernet_found") supernetFound = true;
  if (["succeeded", "failed", "cancelled"].includes(kind)) location.reload();
  // The loss curve of a supernet that another job trained comes with the page, once this job has taken it over.
  if (kind === "phase" && supernetFound) location.reload();
}

async function load(generation) {
  let items = [];
  try {
    const response = await fetch(`${api}/evaluations?generation=${generation.generation}&limit=500`);
    if (response.ok) items = (await response.json()).items;
  } catch {
    // The line of the best so far needs no candidates; the points come with the next load of the page.
  }
  charts.addGeneration(generation, items);
  if (!job.second) return;
  try {
    const response = await fetch(`${api}/pareto`);
    if (response.ok) charts.setFront((await response.json()).items);
  } catch {
    // The front comes with the next generation, or the next load of the page.
  }
}

function connected(state) {
  connection.className = `connection ${state}`;
  connection.textContent = state;
  if (state !== "paused") update();
}

offerActions(job);
if (["queued", "running", "paused"].includes(job.state)) follow(`${api}/events`, job.sequence, received, connected);
// A place in the queue moves with other jobs, of which this job's events say nothing.
if (job.state === "queued") setInterval(() => document.hidden || document.querySelector("#status .queued") === null || update(), 5000);
