// The upload field: say which file was chosen, and that it is on its way.

const field = document.querySelector("#upload");
const form = field.form;
const chosen = document.querySelector("#chosen");

field.addEventListener("change", () => {
  const [file] = field.files;
  if (file) chosen.textContent = file.name;
});

for (const kind of ["dragenter", "dragleave", "drop"]) {
  field.addEventListener(kind, () => field.parentElement.classList.toggle("over", kind === "dragenter"));
}

form.addEventListener("submit", () => form.setAttribute("aria-busy", "true"));
