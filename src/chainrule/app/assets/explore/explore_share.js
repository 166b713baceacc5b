/* Share and keep: the address, files with the numbers, and pages prepared for a class. */
window.chainrule = window.chainrule || {};
(() => {
  "use strict";

  const FILES = [
    ["report.html", "Report (HTML)", "one file with charts, diagnosis and numbers; opens offline"],
    ["flow.json", "Flow file", "the whole measurement; “Your model” and chainrule.load_flow read it back"],
    ["numbers.csv", "Numbers (CSV)", "a row per layer of the network on screen, for a spreadsheet"],
    ["numbers.json", "Numbers (JSON)", "a row per layer, and the diagnosis"],
  ];

  chainrule.mountShare = (section, explore) => {
    const { el } = chainrule.dom;
    const said = el("p", { class: "fv-dim", role: "status", "data-part": "said" });
    const copy = (label, make) =>
      el("button", { type: "button", onclick: async () => {
        const value = make();
        try {
          await navigator.clipboard.writeText(value);
          said.textContent = "Copied.";
        } catch {
          said.replaceChildren("Copy it from here: ", el("input", { class: "ex-copy", readonly: true, value, "aria-label": "address", onfocus: (event) => event.target.select() }));
        }
      } }, label);
    const links = FILES.map(([file, label, note]) => {
      const link = el("a", { href: `/files/${file}`, download: `chainrule-${file}` }, label);
      return { link, file, item: el("li", {}, link, el("span", { class: "fv-dim" }, `: ${note}`)) };
    });

    // For a class: what is fixed, hidden, or embedded goes into the address.
    const lock = choice("Fix (shown, not changeable)", "lock");
    const hide = choice("Hide", "hide");
    const made = el("input", { class: "ex-copy", readonly: true, "aria-label": "address of the prepared page", onfocus: (event) => event.target.select() });
    const frame = el("input", { class: "ex-copy", readonly: true, "aria-label": "code to embed one chart", onfocus: (event) => event.target.select() });
    const words = JSON.parse(document.getElementById("explore-root").dataset.vocabulary);
    const panel = el("select", { "aria-label": "chart to embed", onchange: () => prepare() }, Object.entries(words.panels).map(([value, label]) => el("option", { value }, label)));

    function choice(title, name) {
      const all = JSON.parse(document.getElementById("explore-root").dataset.vocabulary);
      const options = all.controls.map((control) => [control.name, control.label]);
      if (name === "hide") options.push(...Object.entries(all.parts));
      return el("fieldset", { class: "ex-checks", "data-teacher": name }, el("legend", {}, title),
        options.map(([value, label]) => el("label", {}, el("input", { type: "checkbox", value, onchange: () => prepare() }), ` ${label}`)));
    }

    function checked(group) {
      return [...group.querySelectorAll("input:checked")].map((box) => box.value).join(",");
    }

    function prepare() {
      const query = new URLSearchParams(explore.address());
      for (const [name, group] of [["lock", lock], ["hide", hide]]) {
        const value = checked(group);
        if (value) query.set(name, value);
        else query.delete(name);
      }
      made.value = `${location.origin}/?${query}`;
      for (const name of ["lock", "hide"]) query.delete(name);
      query.set("embed", panel.value);
      frame.value = `<iframe src="${location.origin}/?${query}" width="100%" height="640" style="border:0" title="chainrule: ${words.panels[panel.value]}"></iframe>`;
    }

    section.replaceChildren(
      el("h2", {}, "Share and keep"),
      el("div", { class: "ex-row" }, copy("Copy link", () => `${location.origin}/?${explore.address()}`), el("span", { class: "fv-dim ex-row-text" }, "The address holds everything on screen; each chart saves as SVG or PNG at its upper right.")),
      said,
      el("ul", { class: "ex-files" }, links.map(({ item }) => item)),
      el("details", { "data-part": "teacher" }, el("summary", {}, "Prepare this page for a class"),
        el("div", { class: "ex-teacher" }, lock, hide,
          el("label", {}, "The prepared page", made), el("label", {}, "One chart in another page: ", panel), frame)),
    );
    explore.onAnswer((answer) => {
      for (const { link, file } of links) link.href = `/files/${file}?${answer.view.query}`;
      section.dataset.query = answer.view.query;
      said.textContent = "";
      for (const [name, group] of [["lock", lock], ["hide", hide]]) {
        const key = answer.view[name].join();
        if (group.dataset.view === key) continue;
        group.dataset.view = key;
        for (const box of group.querySelectorAll("input")) box.checked = answer.view[name].includes(box.value);
      }
      prepare();
    });
  };
})();
