// Two things: the page wears Airflow's theme, and what changes is fetched again, section by section.
"use strict";

// --- Theme: Airflow puts "dark" or "light" on the root element of the page around our frame -----------------------------
const root = document.documentElement;
const system = window.matchMedia("(prefers-color-scheme: dark)");

function around() {
  try {
    return window.parent !== window ? window.parent.document.documentElement : null;
  } catch {
    return null; // framed by another origin, which the response's policy refuses anyway
  }
}

function wear() {
  const shell = around();
  const said = shell && (shell.classList.contains("dark") || shell.classList.contains("light"));
  root.classList.toggle("dark", said ? shell.classList.contains("dark") : system.matches);
  const paper = shell && window.parent.getComputedStyle(window.parent.document.body).backgroundColor;
  if (paper?.startsWith("rgb(")) root.style.setProperty("--paper", paper);
  dress();
}

// The report is a file of its own that runs no script: it is told from here.
function dress() {
  const report = document.querySelector("iframe")?.contentDocument?.documentElement;
  if (report) report.dataset.theme = root.classList.contains("dark") ? "dark" : "light";
}

wear();
system.addEventListener("change", wear);
if (around()) new MutationObserver(wear).observe(around(), { attributes: true, attributeFilter: ["class"] });

// --- Refresh: only sections that differ are replaced, so nothing flickers and what is open stays open --------------------
const SLOWEST = 30;
let seenAt = Date.now();

function keep(old, fresh) {
  for (const details of old.querySelectorAll("details[open][id]")) {
    const again = fresh.querySelector("#" + CSS.escape(details.id));
    if (again) again.open = true;
  }
}

function put(live, page) {
  const fresh = [...page.querySelectorAll("section[id]")];
  const ids = [...live.querySelectorAll(":scope > section[id]")].map((one) => one.id);
  if (ids.join() !== fresh.map((one) => one.id).join()) {
    for (const section of fresh) section.dataset.was = section.innerHTML;
    live.replaceChildren(...fresh);
  } else {
    for (const section of fresh) {
      const old = document.getElementById(section.id);
      if (old.dataset.was === section.innerHTML) continue;
      const was = section.innerHTML;
      keep(old, section);
      const typed = old.contains(document.activeElement) ? document.activeElement.id : "";
      const text = old.querySelector("#filter")?.value;
      section.dataset.was = was;
      old.replaceWith(section);
      if (text) section.querySelector("#filter").value = text;
      if (typed) document.getElementById(typed)?.focus();
    }
  }
  prepare(live);
}

function prepare(live) {
  const box = live.querySelector("#filter");
  if (!box) return;
  box.closest(".filter").hidden = false;
  box.oninput = () => sift(box);
  sift(box);
}

function sift(box) {
  const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const row of document.querySelectorAll("#hosts-table tbody tr")) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
  }
}

function complain(text) {
  const banner = document.getElementById("stale");
  if (!banner) return;
  banner.hidden = !text;
  banner.textContent = text && `${text} What is shown is ${Math.round((Date.now() - seenAt) / 1000)} seconds old.`;
}

async function refresh(live) {
  let wait = 3;
  try {
    const answer = await fetch(live.dataset.live + location.search, { cache: "no-store" });
    if (answer.ok) {
      put(live, new DOMParser().parseFromString(await answer.text(), "text/html"));
      seenAt = Date.now();
      complain("");
    } else if (answer.status === 401) {
      complain("You are signed out of Airflow: sign in again.");
    } else {
      complain(answer.status === 503 ? "The ledger does not answer." : `Airflow answers with status ${answer.status}.`);
    }
    wait = Number(live.querySelector("[data-every]")?.dataset.every || wait);
  } catch {
    complain("Airflow does not answer.");
  }
  setTimeout(() => refresh(live), 1000 * Math.min(wait, SLOWEST));
}

document.addEventListener("DOMContentLoaded", () => {
  document.querySelector("iframe")?.addEventListener("load", dress);
  dress();
  const live = document.getElementById("live");
  if (!live || !live.dataset.live) return;
  for (const section of live.querySelectorAll(":scope > section[id]")) section.dataset.was = section.innerHTML;
  prepare(live);
  setTimeout(() => refresh(live), 3000);
});
