// The next runs of a crontab, shown while one types. Everything the server says is put in
// as text; the address comes from the page, so this file needs no template.

const PAUSE_MS = 150;

function start(preview) {
  const crontab = document.getElementById("id_crontab");
  const zone = document.getElementById("id_timezone");
  if (!crontab || !zone) {
    return;
  }
  const words = preview.querySelector(".cq-words");
  const runs = preview.querySelector(".cq-runs");
  let timer = 0;
  let request = new AbortController();

  function show(answer) {
    preview.hidden = false;
    preview.classList.toggle("cq-wrong", Boolean(answer.error));
    words.textContent = answer.error || answer.words;
    runs.replaceChildren(
      ...(answer.runs || []).map((run) => {
        const item = document.createElement("li");
        const time = document.createElement("time");
        time.dateTime = run.utc;
        time.textContent = run.local;
        item.append(time, run.note ? ` (${run.note})` : "");
        return item;
      }),
    );
  }

  async function ask() {
    request.abort();
    request = new AbortController();
    const query = new URLSearchParams({ crontab: crontab.value, timezone: zone.value });
    try {
      const response = await fetch(`${preview.dataset.url}?${query}`, {
        signal: request.signal,
        headers: { Accept: "application/json" },
      });
      if (response.ok) {
        show(await response.json());
      }
    } catch (error) {
      if (error.name !== "AbortError") {
        preview.hidden = true;
      }
    }
  }

  function askSoon() {
    clearTimeout(timer);
    timer = setTimeout(ask, PAUSE_MS);
  }

  crontab.closest("fieldset").append(preview);
  crontab.addEventListener("input", askSoon);
  zone.addEventListener("input", askSoon);
  ask();
}

document.addEventListener("DOMContentLoaded", () => {
  const preview = document.getElementById("cq-preview");
  if (preview) {
    start(preview);
  }
});
