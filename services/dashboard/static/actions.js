// What can be done with a job from its page: buttons, the questions they ask first, and the calls they make.

import { refresh } from "./page.js";

const trouble = document.getElementById("trouble");

/** Make the page's action buttons work for one job. */
export function offerActions(job) {
  const api = `/v1/jobs/${encodeURIComponent(job.id)}`;
  document.addEventListener("click", (event) => {
    event.target.closest("[data-close]")?.closest("dialog").close("keep");
    const button = event.target.closest("[data-action]");
    if (!button) return;
    const name = button.dataset.action;
    const dialog = document.getElementById(`confirm-${name}`);
    if (!dialog) return act(job, api, name, {});
    dialog.returnValue = "keep";
    dialog.showModal();
  });
  for (const dialog of document.querySelectorAll("dialog[id^=confirm-]")) {
    const name = dialog.id.replace("confirm-", "");
    dialog.addEventListener("close", () => {
      if (dialog.returnValue === "do") ask(job, api, name, dialog.querySelector("form"));
    });
  }
}

function ask(job, api, name, form) {
  let body;
  try {
    body = filled(form);
  } catch (error) {
    return report(name, error);
  }
  return act(job, api, name, body);
}

/** The fields that were filled in, as a request: `search.strategy` is the field `strategy` of the part `search`. */
function filled(form) {
  const body = JSON.parse(form.elements.json?.value.trim() || "{}");
  for (const field of form.querySelectorAll("input, select")) {
    if (field.value.trim() === "") continue;
    const value = field.type === "number" ? Number(field.value) : field.value.trim();
    const [part, name] = field.name.split(".");
    if (name) body[part] = { ...body[part], [name]: value };
    else body[part] = value;
  }
  return body;
}

async function act(job, api, name, body) {
  const button = document.getElementById(name);
  button.disabled = true;
  trouble.hidden = true;
  try {
    const response = await call(api, name, body);
    if (response.status === 401) return location.reload();
    if (!response.ok) throw new Error(await reason(response));
    if (name === "delete") return location.assign("/");
    if (response.status === 201) return location.assign(`/jobs/${(await response.json()).id}`);
    await refresh(`/jobs/${encodeURIComponent(job.id)}/live`);
  } catch (error) {
    button.disabled = false;
    report(name, error);
  }
}

function call(api, name, body) {
  if (name === "delete") return fetch(api, { method: "DELETE" });
  const json = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  return fetch(`${api}/${name}`, ["pause", "resume", "cancel"].includes(name) ? { method: "POST" } : json);
}

async function reason(response) {
  try {
    const problem = await response.json();
    return problem.errors?.map((error) => `${error.field}: ${error.message}`).join("; ") || problem.detail;
  } catch {
    return `the service answered ${response.status}`;
  }
}

function report(name, error) {
  trouble.textContent = `The job could not be ${{ pause: "paused", cancel: "cancelled" }[name] ?? `${name.replace(/e$/, "")}ed`}: ${error.message}`;
  trouble.hidden = false;
}
