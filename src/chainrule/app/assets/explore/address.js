/* Addresses of the explorer: what they say, and how one follows from another. */

/**
 * How a network is shown; its settings are the rest of an address.
 * @typedef {object} Extra
 * @property {string} measure
 * @property {string} scale
 * @property {number} layer
 * @property {string | null} pin
 * @property {string[]} hide
 * @property {string[]} lock
 * @property {string | null} embed
 * @property {string | null} tour step of the tour
 * @property {string[]} [guess]
 * @property {string} [ask]
 * @property {string} [theory] "1" to show what theory says, too
 */

/** @type {Extra} */
export const START = {
  measure: "weight",
  scale: "log",
  layer: 1,
  pin: null,
  hide: [],
  lock: [],
  embed: null,
  tour: null,
  guess: [],
  ask: "",
  theory: "",
};

const KEPT = ["measure", "scale", "pin", "hide", "lock", "embed", "tour", "guess", "ask", "theory"];

/**
 * Return the address of a network and of how it is shown.
 * @param {URLSearchParams} settings the network's settings; the depth is always among them
 * @param {Extra} extra
 */
export function compose(settings, extra) {
  const { measure, scale, layer, pin, hide, lock, embed, tour, guess = [], ask = "" } = extra;
  const { theory = "" } = extra;
  const query = new URLSearchParams(settings);
  if (measure !== START.measure) query.set("measure", measure);
  if (scale !== START.scale) query.set("scale", scale);
  if (layer > 1 && layer <= Number(query.get("depth"))) query.set("layer", String(layer));
  if (pin) query.set("pin", pin);
  if (hide.length) query.set("hide", hide.join(","));
  if (lock.length) query.set("lock", lock.join(","));
  if (embed) query.set("embed", embed);
  if (tour) query.set("tour", tour);
  if (guess.length) query.set("guess", guess.join(","));
  if (ask) query.set("ask", ask);
  if (theory) query.set("theory", theory);
  return query;
}

/**
 * Return the address that shows another network as the one before is shown; what is fixed stays.
 * @param {string} query the other network
 * @param {URLSearchParams} now the address before
 * @param {string[]} locked names of what is fixed
 */
export function follow(query, now, locked) {
  const wanted = new URLSearchParams(query);
  for (const name of KEPT) {
    const value = now.get(name);
    if (value !== null) wanted.set(name, value);
  }
  for (const name of locked) {
    const value = now.get(name);
    if (value === null) wanted.delete(name);
    else wanted.set(name, value);
  }
  if (locked.includes("init") && now.get("init") !== "random") wanted.delete("weight_std");
  return wanted;
}

/**
 * Return the network alone: how many of it are drawn does not belong to it.
 * @param {string} query
 */
export function nameNetwork(query) {
  const fields = new URLSearchParams(query);
  fields.delete("seeds");
  return fields.toString();
}

/**
 * Whether two addresses name the same network.
 * @param {string} one
 * @param {string} other
 */
export function isSameNetwork(one, other) {
  const [a, b] = [one, other].map((query) => {
    const fields = new URLSearchParams(nameNetwork(query));
    fields.sort();
    return fields.toString();
  });
  return a === b;
}

/**
 * Return the chain-rule page's address of a network.
 *
 * That page's own chain has an activation by that name, so the network's goes by another.
 * @param {string} query
 * @param {{depth: string, activation: string}} defaults what an address that does not say means
 */
export function linkChain(query, defaults) {
  const fields = new URLSearchParams(query);
  const activation = fields.get("activation") ?? defaults.activation;
  fields.delete("seeds");
  fields.delete("activation");
  fields.set("depth", fields.get("depth") ?? defaults.depth);
  fields.set("network_activation", activation);
  return `/chain-rule?${fields}`;
}

/**
 * Return the address of one chart alone, and of the same network on the whole page.
 * @param {string} address
 * @param {string | null} panel
 */
export function setPanel(address, panel) {
  const query = new URLSearchParams(address);
  if (panel === null) query.delete("embed");
  else query.set("embed", panel);
  return `/?${query}`;
}

/**
 * Return the address of what is in a file: the report shows the pinned network, too.
 * @param {string} name
 * @param {any} view
 */
export function nameFile(name, { query, pin }) {
  return name === "report.html" && pin ? `${query}&${new URLSearchParams({ pin })}` : query;
}
