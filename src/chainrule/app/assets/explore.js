/* One question at a time: while the server measures, the newest setting waits and goes next.
 *
 * A drag makes dozens of changes a second. Asking for each of them would queue them all at the
 * server, and only the last answer would ever be shown; so the page stays live by skipping those
 * that were overtaken while a measurement was under way.
 */
window.dash_clientside = Object.assign({}, window.dash_clientside, {
  explore: (() => {
    const PATIENCE = 15000; // after this long without an answer, ask again
    let wanted = null;
    let asked = null;
    let since = 0;
    const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
    const send = () => {
      asked = wanted;
      since = Date.now();
      window.dash_clientside.set_props("asked", { data: asked });
    };
    return {
      ask(...settings) {
        wanted = settings;
        const idle = asked === null || Date.now() - since > PATIENCE;
        if (idle) setTimeout(send); // not from within a callback: the page may still be appearing
        return settings;
      },
      hear(answer) {
        if (!answer) return window.dash_clientside.no_update;
        asked = null;
        if (!same(answer.asked, wanted)) send();
        else if (!answer.isScenario) window.dash_clientside.set_props("preset", { value: null });
        return window.dash_clientside.no_update;
      },
    };
  })(),
});
