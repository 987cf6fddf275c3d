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

  // A stream that ended is not seen: say so, or old figures are taken for new ones.
  const stale = document.getElementById("stale");
  let heard = new Date();
  document.addEventListener("htmx:sse:after:message", () => {
    heard = new Date();
    stale.hidden = true;
  });
  document.addEventListener("htmx:sse:error", () => {
    if (!stale.hidden) return;
    stale.querySelector("time").dateTime = heard.toISOString();
    localize(stale.querySelector("time"));
    stale.hidden = false;
  });

  prepare(document);
  new MutationObserver((changes) => {
    if (changes.length) prepare(document);
  }).observe(document.body, {
    childList: true, characterData: true, subtree: true, attributes: true, attributeFilter: ["datetime", "hidden"],
  });
})();
