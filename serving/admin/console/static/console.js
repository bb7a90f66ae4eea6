// The console's own script: what is live on a page, times that say how long ago, and the dialog of a verb.
"use strict";
(() => {
  const AGAIN = 2000;

  // Times.
  const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  function ago(element) {
    const at = Date.parse(element.dateTime), left = at - Date.now(), away = Math.abs(left) / 1000;
    const [size, name] = UNITS.find(([size]) => away >= size) || [1, "s"];
    const text = `${Math.floor(away / size)} ${name}`;
    element.title = `${element.dateTime.replace("T", " ").replace("+00:00", "")} UTC`;
    const said = left > 1000 ? `in ${text}` : `${text} ago`;
    if (element.textContent !== said) element.textContent = said;
  }
  function agoAll(within) {
    within.querySelectorAll("time[data-ago]").forEach(ago);
  }
  agoAll(document);
  document.querySelectorAll("pre.log").forEach((log) => { log.scrollTop = log.scrollHeight; });
  setInterval(() => agoAll(document), 1000);

  // Regions.
  function fragment(html) {
    const template = document.createElement("template");
    template.innerHTML = html;
    return template.content.firstElementChild;
  }
  function focused(within) {
    const active = document.activeElement;
    if (!active || !within.contains(active)) return null;
    return active.id ? `#${CSS.escape(active.id)}` : active.href ? `a[href="${CSS.escape(active.getAttribute("href"))}"]` : null;
  }
  function say(text) {
    const place = document.getElementById("announce");
    if (place && place.textContent !== text) place.textContent = text;
  }
  function words(element) {
    return Array.from(element.querySelectorAll("[data-announce]"), (e) => e.textContent).join(", ");
  }
  function sort(body) {
    const rows = Array.from(body.children);
    const wanted = rows.slice().sort((a, b) => a.dataset.rank - b.dataset.rank || (a.id < b.id ? -1 : 1));
    if (wanted.some((row, i) => row !== rows[i])) body.append(...wanted);
  }
  function put({ id, html }) {
    const fresh = fragment(html), old = document.getElementById(id);
    agoAll(fresh);
    if (!old) {
      const into = document.getElementById(fresh.dataset.into);
      if (into) into.append(fresh);
    } else {
      const was = focused(old), before = words(old), after = words(fresh);
      const opened = Array.from(old.querySelectorAll("details[open]"), (e) => e.id);
      old.replaceWith(fresh);
      opened.forEach((one) => { const e = one && document.getElementById(one); if (e) e.open = true; });
      const again = was && fresh.querySelector(was);
      if (again) again.focus({ preventScroll: true });
      if (after && before !== after) say(fresh.dataset.into ? `${id.slice(4)}: ${after}` : after);
    }
    if (window.htmx) window.htmx.process(fresh);
    const body = fresh.parentElement;
    if (body && "sorted" in body.dataset) sort(body);
  }

  // The stream.
  const connection = document.getElementById("connection");
  let source = null;
  function tell(text, link) {
    connection.hidden = !text;
    connection.textContent = text;
    if (link) {
      const a = document.createElement("a");
      a.href = link.href;
      a.textContent = link.text;
      connection.append(" ", a);
    }
  }
  const away = "The control database does not answer: what you see is old. Serving goes on.";
  function ended() {
    if (source) source.close();
    source = null;
    const back = encodeURIComponent(location.pathname);
    tell("Your session has ended: what you see is old.", { href: `/console/sign-in?next=${back}`, text: "Sign in again" });
  }
  function listen(url) {
    source = new EventSource(url);
    source.addEventListener("open", () => tell(""));
    source.addEventListener("region", (event) => put(JSON.parse(event.data)));
    source.addEventListener("gone", (event) => {
      const old = document.getElementById(JSON.parse(event.data).id);
      if (old) old.remove();
    });
    source.addEventListener("away", () => tell(away));
    source.addEventListener("back", () => tell(""));
    source.addEventListener("ended", ended);
    source.addEventListener("error", async () => {
      if (!source) return;
      tell("The connection is lost: what you see is old. Trying again.");
      source.close();
      source = null;
      let status = 0;
      try {
        status = (await fetch("/console/session", { cache: "no-store", redirect: "manual" })).status;
      } catch {
        status = 0;
      }
      if (status === 503) tell(away);
      if (status === 401) ended();
      else setTimeout(() => listen(url), AGAIN);
    });
  }
  if (document.body.dataset.live) listen(document.body.dataset.live);
  window.addEventListener("pagehide", () => { if (source) source.close(); });
  window.addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });

  // Questions that are answered by a key.
  const keyed = document.querySelector("form[data-keys]");
  if (keyed) {
    document.addEventListener("keydown", (event) => {
      const typing = event.target.closest("input, textarea, select");
      if (typing || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
      const button = Array.from(keyed.querySelectorAll("[data-key]")).find((one) => one.dataset.key === event.key);
      if (button) button.click();
    });
  }

  const print = document.querySelector("[data-print]");
  if (print) print.addEventListener("click", () => window.print());

  // The dialog.
  const dialog = document.getElementById("dialog");
  document.body.addEventListener("htmx:afterSwap", (event) => {
    if (event.detail.target.id === "dialog-content") {
      if (!dialog.open) dialog.showModal();
      const first = dialog.querySelector("[autofocus]");
      if (first) first.focus();
    } else {
      agoAll(document);
      document.querySelectorAll("pre.log").forEach((log) => { log.scrollTop = log.scrollHeight; });
    }
  });
  document.body.addEventListener("htmx:responseError", (event) => {
    if (event.detail.xhr.status === 401) ended();
    else tell("That did not work: load the page again.");
  });
  document.body.addEventListener("click", (event) => {
    const close = event.target.closest("[data-close]");
    if (close && dialog.open) {
      event.preventDefault();
      dialog.close();
    }
  });

  // What is loaded later than the page can be waited for.
  document.addEventListener("DOMContentLoaded", () => setTimeout(() => { document.documentElement.dataset.ready = ""; }));
})();
