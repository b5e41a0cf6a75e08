// A study's page: sorts its table, draws its charts, stays fresh while the study runs, and does what its buttons say.

import { refresh } from "./page.js";
import { StudyCharts } from "./study_plots.js";

const read = () => JSON.parse(document.querySelector("#study-data script").textContent);
const study = read();
const api = `/v1/studies/${encodeURIComponent(study.id)}`;
const connection = document.getElementById("connection");
const trouble = document.getElementById("trouble");
const charts = new StudyCharts(study);
const order = { key: "number", descending: false };
let delay = 2000;
let timer = 0;

/** Put the table's rows in the chosen order; what has no value comes last either way. */
function sort() {
  const body = document.querySelector(".trials tbody");
  const value = (row) => row.querySelector(`[data-key="${CSS.escape(order.key)}"]`).dataset.value;
  const rows = [...body.rows].sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === "" || y === "") return (x === "") - (y === "");
    const bigger = x !== "" && y !== "" && !isNaN(x) && !isNaN(y) ? x - y : x.localeCompare(y, "en", { numeric: true });
    return order.descending ? -bigger : bigger;
  });
  body.append(...rows);
  for (const button of document.querySelectorAll("[data-sort]")) {
    const chosen = button.dataset.sort === order.key;
    const cell = button.closest("th");
    if (chosen) cell.setAttribute("aria-sort", order.descending ? "descending" : "ascending");
    else cell.removeAttribute("aria-sort");
  }
}

/** Figures are looked at from the greatest on; names and numbers of trials from the first on. */
function choose(key) {
  order.descending = order.key === key ? !order.descending : ["best", "test"].includes(key);
  order.key = key;
  sort();
}

async function poll() {
  clearTimeout(timer);
  if (document.hidden) return;
  try {
    await update();
    delay = 2000;
    connection.hidden = true;
  } catch {
    delay = Math.min(delay * 2, 30000);
    connection.hidden = false;
    connection.className = "connection reconnecting";
    connection.textContent = "reconnecting";
  }
  if (!read().settled) timer = setTimeout(poll, delay);
}

async function update() {
  await refresh(location.href);
  sort();
  charts.show(read());
}

async function act(name) {
  trouble.hidden = true;
  try {
    const response = await (name === "delete" ? fetch(api, { method: "DELETE" }) : fetch(`${api}/${name}`, { method: "POST" }));
    if (response.status === 401) return location.reload();
    if (!response.ok) throw new Error((await response.json()).detail);
    if (name === "delete") return location.assign("/studies");
    await update();
  } catch (error) {
    trouble.textContent = `The study could not be ${name === "delete" ? "deleted" : "cancelled"}: ${error.message}`;
    trouble.hidden = false;
  }
}

document.addEventListener("click", (event) => {
  const heading = event.target.closest("[data-sort]");
  if (heading) return choose(heading.dataset.sort);
  const button = event.target.closest("[data-action]");
  if (!button) return;
  const dialog = document.getElementById(`confirm-${button.dataset.action}`);
  dialog.returnValue = "keep";
  dialog.showModal();
});
for (const dialog of document.querySelectorAll("dialog[id^=confirm-]")) {
  dialog.addEventListener("close", () => dialog.returnValue === "do" && act(dialog.id.replace("confirm-", "")));
}
document.addEventListener("visibilitychange", () => read().settled || poll());
sort();
if (!study.settled) timer = setTimeout(poll, delay);
