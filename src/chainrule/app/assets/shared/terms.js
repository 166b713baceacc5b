/* Words of the field, explained where they stand: in marked places each becomes a button that opens
 * its meaning. The meanings are in the page, in its glossary (text/glossary.md); none is here.
 */
import { el, find, findAll } from "./dom.js";

const PLACES = "[data-terms], .ex-remedy h4";
const ROOTS = "[data-terms], .ex-remedies > .ex-remedy-list"; // where they come and go
const LEFT_ALONE = "button, a, summary, label, select, svg, h2";
const [EDGE, GAP] = [8, 6]; // px between a card and the window's edge, and its word

/**
 * Return a pattern that finds any of some words, the longest first; as they are written, or with a
 * capital at the start of a sentence.
 * @param {string[]} words
 */
export function makePattern(words) {
  const forms = words.flatMap((word) => [word, word[0].toUpperCase() + word.slice(1)]);
  const safe = [...new Set(forms)]
    .sort((a, b) => b.length - a.length)
    .map((form) => form.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  return new RegExp(`(?<![\\p{L}\\p{N}])(?:${safe.join("|")})(?![\\p{L}\\p{N}])`, "gu");
}

/**
 * Split text at the words that are explained, each term once.
 * @param {string} text
 * @param {RegExp} pattern
 * @param {(word: string) => any} name which term a word stands for
 * @param {Set<any>} seen the terms that were found before; those found here are added
 * @returns {{text: string, term: any}[]}
 */
export function splitText(text, pattern, name, seen) {
  const pieces = [];
  let end = 0;
  for (const found of text.matchAll(pattern)) {
    const term = name(found[0]);
    if (!term || seen.has(term)) continue;
    seen.add(term);
    if (found.index > end) pieces.push({ text: text.slice(end, found.index), term: null });
    pieces.push({ text: found[0], term });
    end = found.index + found[0].length;
  }
  if (pieces.length && end < text.length) pieces.push({ text: text.slice(end), term: null });
  return pieces;
}

/** Explain the words of the page that its glossary knows. */
export function mountTerms() {
  const all = findAll(document, "dt[data-words]");
  /** @type {Map<string, HTMLElement>} a term of the glossary by each of its words */
  const terms = new Map();
  for (const term of all) {
    for (const word of term.dataset.words.split("|")) terms.set(word.toLowerCase(), term);
  }
  if (!terms.size) return;
  const pattern = makePattern(all.flatMap((term) => term.dataset.words.split("|")));
  const name = (/** @type {string} */ word) => terms.get(word.toLowerCase());
  const open = makeCard();

  /** @param {Element} place */
  function mark(place) {
    const seen = new Set(findAll(place, "button.term").map((done) => name(done.textContent)));
    const walker = document.createTreeWalker(place, NodeFilter.SHOW_TEXT);
    /** @type {Text[]} */
    const texts = [];
    while (walker.nextNode()) texts.push(/** @type {Text} */ (walker.currentNode));
    for (const text of texts) {
      if (text.parentElement?.closest(LEFT_ALONE)) continue;
      const pieces = splitText(text.data, pattern, name, seen);
      if (pieces.length)
        text.replaceWith(...pieces.map(({ text, term }) => (term ? make(text, term) : text)));
    }
  }

  /**
   * @param {string} word
   * @param {HTMLElement} term
   */
  function make(word, term) {
    const about = { type: "button", class: "term", "aria-expanded": "false" };
    const button = el("button", { ...about, title: "What does this mean?" }, word);
    button.addEventListener("click", () => open(button, term));
    return button;
  }

  for (const place of findAll(document, PLACES)) mark(place);
  const watcher = new MutationObserver((records) => {
    const places = new Set();
    for (const { target } of records) {
      const node = /** @type {any} */ (target.nodeType === 1 ? target : target.parentElement);
      const place = node?.closest(PLACES);
      if (place) places.add(place);
      else for (const inner of node ? findAll(node, PLACES) : []) places.add(inner);
    }
    for (const place of places) mark(place);
    watcher.takeRecords(); // what was marked just now
  });
  for (const root of findAll(document, ROOTS))
    watcher.observe(root, { childList: true, characterData: true, subtree: true });
}

/** Make the card that shows a meaning; return what opens it beside a button. */
function makeCard() {
  const card = el("div", { class: "term-card", popover: "auto", role: "status" });
  /** @type {any} */
  let opener = null;
  let place = ""; // where it stood when the card came
  const locate = () => String(Object.values(opener.getBoundingClientRect().toJSON()));
  document.body.append(card);
  card.addEventListener("toggle", (/** @type {any} */ event) => {
    if (event.newState !== "closed") return;
    opener?.setAttribute("aria-expanded", "false");
    opener = null;
  });
  const close = () => card.hidePopover();
  // Not by the card's own scrolling, nor by one that was over before the card came.
  const leave = () => opener && locate() !== place && close();
  addEventListener("scroll", leave, { passive: true, capture: true });
  const openAll = () => {
    close();
    const words = find(document, "details#words");
    if (words) words.open = true; // it is folded, and whoever asks for it wants it open
  };

  return (/** @type {any} */ button, /** @type {HTMLElement} */ term) => {
    const meaning = find(/** @type {any} */ (term.parentElement), "dd");
    const copy = (/** @type {Element} */ node) => [...node.cloneNode(true).childNodes];
    card.replaceChildren(
      el("p", { class: "strong" }, copy(term)),
      el("p", {}, copy(meaning)),
      el("p", {}, el("a", { href: "#words", onclick: openAll }, "All words")),
    );
    card.showPopover({ source: button });
    opener?.setAttribute("aria-expanded", "false");
    opener = button;
    button.setAttribute("aria-expanded", "true");
    const { left, top, bottom } = button.getBoundingClientRect();
    place = locate();
    const { width, height } = card.getBoundingClientRect();
    const below = bottom + GAP + height < innerHeight - EDGE;
    const beside = Math.min(left, innerWidth - width - EDGE);
    card.style.left = `${Math.max(EDGE, beside)}px`;
    card.style.top = `${below ? bottom + GAP : Math.max(EDGE, top - height - GAP)}px`;
  };
}
