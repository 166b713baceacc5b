/* The history: an edit is one entry, however many values it went through, so that Back undoes it. */

export class Edits {
  constructor() {
    this.wanted = false; // whether what is written next comes of an edit
    this.open = false; // whether the edit under way has its entry already
    /** @type {unknown} */
    this.place = null;
  }

  /**
   * Something is being edited.
   * @param {unknown} [place] where: to edit elsewhere is another edit
   */
  begin(place = null) {
    if (place !== this.place) this.end();
    this.place = place;
    this.wanted = true;
  }

  /** It is done: the next edit gets an entry of its own. */
  end() {
    this.wanted = false;
    this.open = false;
  }

  /**
   * Write an address.
   * @param {string} address
   * @param {boolean} [push] whether it gets an entry in any case
   */
  write(address, push = false) {
    const fresh = push || (this.wanted && !this.open && address !== location.search);
    if (this.wanted && fresh) this.open = true;
    this.wanted = false;
    try {
      history[fresh ? "pushState" : "replaceState"](null, "", address);
    } catch {
      /* a browser that has seen too many changes at once: the next one says it all */
    }
  }
}
