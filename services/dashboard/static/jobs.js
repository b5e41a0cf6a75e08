// Keeps the list of jobs fresh: fetches the same page again every two seconds while its tab is visible.

import { refresh } from "./page.js";

const connection = document.getElementById("connection");
let delay = 2000;
let timer = 0;

async function poll() {
  clearTimeout(timer);
  if (document.hidden) return;
  try {
    await refresh(location.href);
    delay = 2000;
    connection.hidden = true;
  } catch {
    delay = Math.min(delay * 2, 30000);
    connection.hidden = false;
    connection.className = "connection reconnecting";
    connection.textContent = "reconnecting";
  }
  clearTimeout(timer);
  timer = setTimeout(poll, delay);
}

document.addEventListener("visibilitychange", poll);
timer = setTimeout(poll, delay);
