/* Share and keep: the address, files with the numbers, and pages prepared for a class. */

import { copy, el, find, findAll, part, readData } from "../shared/dom.js";
import { setPanel } from "./address.js";

/**
 * Copy the address of what is on screen, or show it where a browser does not copy.
 * @param {import("./explore.js").Api} explore
 * @param {any} said where to say so
 */
async function copyLink(explore, said) {
  const value = `${location.origin}/?${explore.address()}`;
  if (await copy(value)) {
    said.textContent = "Copied.";
    said.dataset.address = explore.address(); // a refined answer leaves it
    return;
  }
  const field = el("input", {
    class: "ex-copy",
    readonly: true,
    value,
    "aria-label": "address",
    onfocus: () => field.select(),
  });
  said.replaceChildren("Copy it from here: ", field);
}

const PREVIEW = "Where a link to this page is shared, the same picture is shown.";
const DRAWING = "Drawing the picture …";
const FAILED = "The picture could not be drawn: the server is busy. Close this, and try again.";

/**
 * Show the picture of what is on screen, which the server draws, whenever somebody asks for it.
 * @param {import("./explore.js").Api} explore
 * @returns {() => void} what shows it
 */
function mountPicture(explore) {
  const dialog = part(document, "picture");
  const image = part(dialog, "picture-image");
  const said = part(dialog, "picture-said");
  const say = (/** @type {string} */ words) => {
    said.textContent = words;
  };
  image.addEventListener("load", () => say(PREVIEW));
  image.addEventListener("error", () => say(FAILED));
  const open = () => {
    for (const link of findAll(dialog, "[data-picture]"))
      link.href = `/files/picture.${link.dataset.picture}?${explore.address()}`;
    say(DRAWING);
    image.alt = "the picture: networks, verdict, chart and address"; // tells nothing that is covered
    image.src = `/files/picture.png?${explore.address()}`;
    dialog.showModal();
  };
  part(document, "share-picture").addEventListener("click", open);
  part(dialog, "picture-close").addEventListener("click", () => dialog.close());
  part(dialog, "picture-copy").addEventListener("click", () => copyLink(explore, said));
  return open;
}

/**
 * Bring the section to life.
 * @param {HTMLElement} section
 * @param {import("./explore.js").Api} explore
 * @returns {() => void} what shows the picture of what is on screen
 */
export function mountShare(section, explore) {
  const { panels } = readData(find(document, "#explore-root"), "vocabulary");
  const said = part(section, "said");
  const prepared = part(section, "prepared");
  const code = part(section, "frame-code");
  const panel = part(section, "panel");
  // For a class: what is fixed, hidden, or embedded goes into the address.
  const groups = findAll(section, "[data-teacher]");

  for (const field of findAll(section, ".ex-copy"))
    field.addEventListener("focus", () => field.select());
  const ask = part(section, "ask");
  for (const each of [...groups, panel, ask]) each.addEventListener("change", prepare);
  part(section, "copy-link").addEventListener("click", () => copyLink(explore, said));
  const showPicture = mountPicture(explore);

  function prepare() {
    const query = new URLSearchParams(explore.address());
    for (const group of groups) {
      const value = findAll(group, "input:checked")
        .map((box) => box.value)
        .join(",");
      if (value) query.set(group.dataset.teacher, value);
      else query.delete(group.dataset.teacher);
    }
    if (ask.value) query.set("ask", ask.value);
    else query.delete("ask");
    prepared.value = `${location.origin}/?${query}`;
    for (const group of groups) query.delete(group.dataset.teacher);
    query.delete("ask");
    const address = `${location.origin}${setPanel(query.toString(), panel.value)}`;
    code.value = `<iframe src="${address}" width="100%" height="640" style="border:0" title="chainrule: ${panels[panel.value]}"></iframe>`;
  }

  explore.onAnswer((answer) => {
    if (said.dataset.address !== explore.address()) said.textContent = "";
    if (ask.dataset.view !== answer.view.ask) ask.value = answer.view.ask;
    ask.dataset.view = answer.view.ask;
    for (const group of groups) {
      const names = answer.view[group.dataset.teacher];
      if (group.dataset.view === names.join()) continue;
      group.dataset.view = names.join();
      for (const box of findAll(group, "input")) box.checked = names.includes(box.value);
    }
    prepare();
  });
  return showPicture;
}
