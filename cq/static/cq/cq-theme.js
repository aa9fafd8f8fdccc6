// The chosen theme, before the first paint. The admin keeps its choice under the same name.
{
  const kept = localStorage.getItem("theme");
  document.documentElement.dataset.theme = ["light", "dark"].includes(kept) ? kept : "auto";
}
