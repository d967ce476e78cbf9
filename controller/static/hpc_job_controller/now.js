// Keeps the panels "Now" of the admin pages fresh, without inline code: `data-url` names the page
// to fetch. The answer says by `data-refresh-s` when to come again; without it nothing is under way.
// Only parts that have changed are replaced, so that no button goes away under a finger.
"use strict";

(() => {
  const LIMIT_MS = 10000;
  const AFTER_TROUBLE_MS = 10000;

  class Trouble extends Error {}

  async function fetched(url) {
    let response;
    try {
      response = await fetch(url, {
        cache: "no-store",
        redirect: "manual",
        signal: AbortSignal.timeout(LIMIT_MS),
      });
    } catch (error) {
      throw new Trouble("the web server can't be reached, or takes too long");
    }
    if (response.type === "opaqueredirect") {
      throw new Trouble("you are no longer logged in: reload the page");
    }
    if (!response.ok) {
      throw new Trouble(`the web server answered with ${response.status}`);
    }
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const live = page.querySelector("[data-live]");
    if (!live) {
      throw new Trouble("the web server's answer is not this panel: reload the page");
    }
    return live;
  }

  function partsOf(live) {
    const parts = new Map();
    for (const part of live.querySelectorAll("[data-part]")) {
      parts.set(part.dataset.part, part);
    }
    return parts;
  }

  function keepOpen(old, fresh) {
    for (const details of old.querySelectorAll("details[id]")) {
      const same = fresh.querySelector(`#${CSS.escape(details.id)}`);
      if (same) {
        same.open = details.open;
      }
    }
  }

  // `shown` holds the text of each part as it came: the page's own changes (an opened list) apart.
  function replaceChanged(live, fresh, shown) {
    const now = partsOf(fresh);
    for (const [name, part] of partsOf(live)) {
      const text = now.get(name)?.innerHTML;
      if (text !== undefined && text !== shown.get(name)) {
        keepOpen(part, now.get(name));
        part.replaceChildren(...now.get(name).childNodes);
        shown.set(name, text);
      }
    }
    live.dataset.refreshS = fresh.dataset.refreshS || "";
  }

  function watch(panel) {
    const live = panel.querySelector("[data-live]");
    const trouble = panel.querySelector("[data-trouble]");
    const shown = new Map();
    let timer = 0;

    function later(ms) {
      window.clearTimeout(timer);
      if (ms > 0) {
        timer = window.setTimeout(look, ms);
      }
    }

    async function look() {
      if (document.hidden) {
        return; // the next sight of the page looks at once
      }
      try {
        replaceChanged(live, await fetched(panel.dataset.url), shown);
        trouble.hidden = true;
        later(1000 * Number(live.dataset.refreshS));
      } catch (error) {
        if (!(error instanceof Trouble)) {
          throw error;
        }
        trouble.textContent = `What you see may be old: ${error.message}.`;
        trouble.hidden = false;
        later(AFTER_TROUBLE_MS);
      }
    }

    for (const [name, part] of partsOf(live)) {
      shown.set(name, part.innerHTML);
    }
    later(1000 * Number(live.dataset.refreshS));
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && (Number(live.dataset.refreshS) || !trouble.hidden)) {
        look();
      }
    });
  }

  function askBeforeGraveThings(panel) {
    panel.addEventListener("click", (event) => {
      const button = event.target.closest("[data-confirm]");
      if (button && !window.confirm(button.dataset.confirm)) {
        event.preventDefault();
      }
    });
  }

  // A button of the panel leaves the page: what was typed into the form would be gone.
  function warnOfUnsaved(panel) {
    let isChanged = false;
    document.addEventListener("input", (event) => {
      isChanged = isChanged || !panel.contains(event.target);
    });
    panel.addEventListener("click", (event) => {
      const button = event.target.closest("button[formaction], a[href]");
      const question = "What you changed in the form is not saved and will be lost. Go on?";
      if (button && isChanged && !window.confirm(question)) {
        event.preventDefault();
      }
    });
  }

  document.addEventListener("DOMContentLoaded", () => {
    for (const panel of document.querySelectorAll("[data-now]")) {
      watch(panel);
      askBeforeGraveThings(panel);
      warnOfUnsaved(panel);
    }
  });
})();
