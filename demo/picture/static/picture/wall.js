// The wall: press the button as often as you like, and see how many runs come of it.
//
// Each press enqueues the task once more; the answer names the task that was made, or the
// one that waits already. A task that is new gets an element of its own below the button.

const form = document.querySelector("#hang");
const wall = document.querySelector("#wall");
const runs = new Set();
let presses = 0;

function watch({ task, token, poll }) {
  const element = document.createElement("cq-task");
  for (const [name, value] of Object.entries({ task, token, poll, show: "bar", label: "Hang the wall" })) {
    element.setAttribute(name, value);
  }
  element.addEventListener("cq:success", () => {
    wall.src = `${wall.dataset.src}?${task}`;
    wall.hidden = false;
  });
  document.querySelector("#runs").prepend(element);
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  presses += 1;
  const answer = await fetch(form.action, {
    method: "POST",
    body: new FormData(form),
    headers: { Accept: "application/json" },
  });
  const told = await answer.json();
  if (!runs.has(told.task)) {
    runs.add(told.task);
    watch(told);
  }
  document.querySelector("#presses").textContent =
    `${presses} ${presses === 1 ? "press" : "presses"}, ${runs.size} ${runs.size === 1 ? "run" : "runs"}`;
});
