"use strict";
(function () {
  const filter = document.getElementById("filter");
  if (!filter) return;
  const boxes = Array.from(filter.querySelectorAll("input[name=severity]"));
  const area = document.getElementById("area");
  const text = document.getElementById("text");
  const shown = document.getElementById("shown");
  const findings = Array.from(document.querySelectorAll("article.finding"));
  const haystack = new Map(findings.map((f) => [f, f.textContent.toLowerCase()]));

  function apply() {
    const wanted = new Set(boxes.filter((b) => b.checked).map((b) => b.value));
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const section of document.querySelectorAll("section.area")) {
      let here = 0;
      for (const finding of section.querySelectorAll("article.finding")) {
        const match = wanted.has(finding.dataset.severity)
          && (!area.value || section.dataset.area === area.value)
          && words.every((w) => haystack.get(finding).includes(w));
        finding.hidden = !match;
        if (match) here += 1;
      }
      section.hidden = here === 0;
      count += here;
    }
    shown.textContent = count + " of " + findings.length + " findings shown";
  }

  for (const input of [...boxes, area]) input.addEventListener("change", apply);
  text.addEventListener("input", apply);
  window.addEventListener("beforeprint", () => {
    for (const d of document.querySelectorAll("details")) d.open = true;
  });
  filter.hidden = false;
  apply();
})();
