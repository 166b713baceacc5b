// Shows what a chart's column says (data-tip, one line each) beside the pointer. Nothing else.
"use strict";
{
  const tip = document.createElement("div");
  tip.id = "tip";
  tip.hidden = true;
  document.body.append(tip);
  const show = (event) => {
    const column = event.target.closest ? event.target.closest("[data-tip]") : null;
    tip.hidden = !column;
    if (!column) return;
    tip.textContent = column.getAttribute("data-tip");
    const { offsetWidth: width, offsetHeight: height } = tip;
    const right = event.clientX + 14 + width < window.innerWidth;
    tip.style.left = `${Math.max(4, right ? event.clientX + 14 : event.clientX - 14 - width)}px`;
    tip.style.top = `${Math.max(4, Math.min(event.clientY + 14, window.innerHeight - height - 4))}px`;
  };
  document.addEventListener("pointermove", show);
  document.addEventListener("pointerdown", show);
  document.addEventListener("scroll", () => { tip.hidden = true; }, true);
}
