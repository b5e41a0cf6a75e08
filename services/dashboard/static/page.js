// What every page needs: times in the reader's zone, spans that tick, copy buttons, and swapping in fresh server-rendered parts.

const skew = Date.parse(document.body.dataset.now) - Date.now();
const clock = { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" };
const recent = new Intl.DateTimeFormat(undefined, clock);
const dated = new Intl.DateTimeFormat(undefined, { ...clock, year: "numeric" });
const precise = new Intl.DateTimeFormat(undefined, { ...clock, second: "2-digit" });
const rendered = new Map();

/** Fetch a page and put its `data-live` parts in place of those of the same ids, where the server sent anything new. */
export async function refresh(url) {
  const response = await fetch(url, { headers: { Accept: "text/html" }, cache: "no-store" });
  if (response.status === 401) location.reload();
  if (!response.ok) throw new Error(`${url} answered ${response.status}`);
  const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
  for (const part of fresh.querySelectorAll("[data-live]")) {
    const html = part.innerHTML;
    const place = document.getElementById(part.id);
    if (place && rendered.get(part.id) !== html) swap(place, part, html);
  }
}

function swap(place, part, html) {
  const focused = place.contains(document.activeElement) ? document.activeElement.id : "";
  const scrolled = [...place.querySelectorAll(".scroll, .log")].map((element) => [element.scrollLeft, element.scrollTop]);
  rendered.set(part.id, html);
  place.replaceChildren(...part.childNodes);
  localise(place);
  place.querySelectorAll(".scroll, .log").forEach((element, i) => element.scrollTo(...(scrolled[i] ?? [0, 0])));
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

function localise(root) {
  for (const time of root.querySelectorAll("time")) {
    time.title = time.textContent;
    const moment = new Date(time.dateTime);
    const format = moment.getFullYear() !== new Date().getFullYear() ? dated : time.closest(".log") ? precise : recent;
    time.textContent = format.format(moment);
  }
  tick(root);
}

function tick(root) {
  for (const span of root.querySelectorAll("[data-since]")) {
    span.textContent = duration((Date.now() + skew - Date.parse(span.dataset.since)) / 1000);
  }
}

function duration(exact) {
  const whole = Math.max(Math.round(exact), 0);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

async function copy(button) {
  const source = document.getElementById(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(source.textContent);
    button.textContent = "Copied";
  } catch {
    // Browsers refuse the clipboard on plain http away from localhost; a selection is the next best thing.
    getSelection().selectAllChildren(source);
    button.textContent = "Press Ctrl+C";
  }
  setTimeout(() => (button.textContent = "Copy"), 2000);
}

for (const part of document.querySelectorAll("[data-live]")) rendered.set(part.id, part.innerHTML);
localise(document);
setInterval(() => tick(document), 1000);
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  if (button) copy(button);
});
