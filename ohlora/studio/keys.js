"use strict";
// Gradio has no keyboard shortcuts. A key clicks the visible button, or answer, whose text ends with it in brackets,
// except while the user types text.
document.addEventListener("keydown", (event) => {
  const target = event.target;
  const typing = target.matches("textarea, select, [contenteditable=true]") ||
    (target.matches("input") && !["checkbox", "range", "radio"].includes(target.type));
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  // Whoever moves by the Tab key presses what is marked.
  const pressed = {Enter: "button:not([role=tab]), summary, a", " ": "button, summary, a, input"}[event.key];
  if (pressed && target.matches(pressed) && target.matches(":focus-visible")) return;
  // A key that is held down repeats moves, but not answers.
  if (event.repeat && !event.key.startsWith("Arrow")) return;
  if (target.matches("input[type=range]") && event.key.startsWith("Arrow")) return;
  const shown = {ArrowLeft: "←", ArrowRight: "→"};
  const ending = `[${shown[event.key] ?? event.key}]`;
  for (const found of document.querySelectorAll("button, [role=radiogroup] label, .question label")) {
    if (found.offsetParent === null || found.disabled || !found.textContent.trim().endsWith(ending)) continue;
    event.preventDefault();
    found.click();
    return;
  }
});
