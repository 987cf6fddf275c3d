// What pages cannot do without a script: times by the reader's clock, and buttons that copy ids.
// Everything else works without it.
"use strict";

(() => {
  const format = new Intl.DateTimeFormat(undefined, {
    year: "numeric", month: "2-digit", day: "2-digit",
    hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
  });

  function localize(time) {
    const at = new Date(time.dateTime);
    if (Number.isNaN(at.getTime())) return;
    const part = Object.fromEntries(format.formatToParts(at).map(({ type, value }) => [type, value]));
    const text = `${part.year}-${part.month}-${part.day} ${part.hour}:${part.minute}:${part.second}`;
    if (time.textContent !== text) time.textContent = text;
  }

  async function copy(button) {
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      button.classList.add("copied");
      button.textContent = "copied";
    } catch {
      button.textContent = "cannot copy";
    }
    setTimeout(() => {
      button.classList.remove("copied");
      button.textContent = "copy";
    }, 1500);
  }

  function prepare(root) {
    root.querySelectorAll("time[datetime]").forEach(localize);
    // The clipboard is there on loopback and under TLS only.
    if (navigator.clipboard) root.querySelectorAll("button.copy").forEach((b) => { b.hidden = false; });
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button.copy");
    if (button) copy(button);
  });

  // A stream that ended or says nothing is not seen: say so, or old figures are taken for new ones.
  // Ages are by this clock alone, from the age that the page had when it was made.
  const STALE_MS = 15000;
  const stale = document.getElementById("stale");
  const live = document.querySelector("[data-age-ms]");
  const shown = () => live?.querySelector("[data-at-ms]")?.dataset.atMs;
  let last = shown();
  let heard = Date.now() - Number(live?.dataset.ageMs ?? 0);

  function warn() {
    if (!stale.hidden) return;
    stale.querySelector("time").dateTime = new Date(heard).toISOString();
    localize(stale.querySelector("time"));
    stale.hidden = false;
  }

  document.addEventListener("htmx:sse:after:message", () => {
    const now = shown();
    if (now !== undefined && now === last) return; // the same again is no news
    last = now;
    heard = Date.now();
    stale.hidden = true;
  });
  document.addEventListener("htmx:sse:error", warn);
  if (live) setInterval(() => { if (Date.now() - heard > STALE_MS) warn(); }, 1000);

  prepare(document);
  new MutationObserver((changes) => {
    if (changes.length) prepare(document);
  }).observe(document.body, {
    childList: true, characterData: true, subtree: true, attributes: true, attributeFilter: ["datetime", "hidden"],
  });
})();
