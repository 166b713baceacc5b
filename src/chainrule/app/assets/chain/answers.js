/* What the server answers, as types: chain/document.py and graph_document.py describe it. */

/**
 * A number of any size.
 * @typedef {object} Quantity
 * @property {number | null} value `null` where it overflows
 * @property {number | null} log10 of its size; `null` for zero
 * @property {number} sign
 * @property {string} text
 * @property {string} relation between the number and its text: = or ≈
 */

/**
 * A local derivative of the product.
 * @typedef {object} Factor
 * @property {string} id the same in the graph, the equation and the charts
 * @property {string} kind
 * @property {number} layer
 * @property {string[]} edges of the graph that it stands for
 * @property {string} symbol
 * @property {string} substituted
 * @property {string} short
 * @property {string} [label] what stands below it in a line of factors, if not `short`
 * @property {Quantity} value
 * @property {string} effect shrinks, keeps, grows or blocks
 * @property {string} sentence
 * @property {Quantity} running_product
 */

/**
 * A line of a derivation.
 * @typedef {object} Line
 * @property {number} number
 * @property {string} kind
 * @property {string} relation
 * @property {string} note
 * @property {boolean} hidden
 * @property {boolean} unfolds whether its folded factors can be shown
 * @property {string} text
 * @property {string} mathml
 * @property {string} [latex]
 * @property {{text: string, mathml: string, latex: string} | null} [unfolded]
 */

/**
 * A product with its factors: of a chain, or of a measured network.
 * @typedef {object} Product
 * @property {Factor[]} factors output to input
 * @property {{text: string, latex: string}} subject
 * @property {Line[]} lines
 * @property {number} hidden_lines
 * @property {Quantity} gradient
 */

/**
 * What would come of a common slip.
 * @typedef {object} Erratum
 * @property {string} sentence
 * @property {{layer: number, right: Quantity, wrong: Quantity}[]} layers
 */

/**
 * @typedef {object} Network
 * @property {Quantity[]} deltas
 * @property {Quantity[]} weight_gradients
 * @property {Quantity} output
 * @typedef {Product & Network} NetworkAnswer
 */

/**
 * What happens to the product over many layers, and which weights keep it.
 * @typedef {object} Depth
 * @property {Quantity[]} products
 * @property {Quantity[]} best
 * @property {number} threshold
 * @property {number[]} region
 * @property {number[][]} intervals
 * @property {number} size
 * @property {boolean} negative
 * @property {number[][]} reach
 * @property {number[][]} funnel
 */

export {};
