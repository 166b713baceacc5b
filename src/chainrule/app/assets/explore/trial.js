/* A training as the server streams it: a line for every record, and one that says how it ended. */

/**
 * Yield the lines of a stream as the objects that they are.
 * @param {any} body
 */
export async function* readLines(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) if (line) yield JSON.parse(line);
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/**
 * Train a network as the training panel does by default; return how it ended.
 * @param {string} query the network
 * @param {(line: any) => void} hear called with every line
 * @param {AbortSignal} signal
 */
export async function tryNetwork(query, hear, signal) {
  const lost = { type: "error", error: "The server does not answer. Try again." };
  try {
    const answer = await fetch(`/api/train?${query}`, {
      signal,
      headers: { Accept: "application/x-ndjson" },
    });
    if (!answer.ok) return { type: "error", error: (await answer.json()).error };
    for await (const line of readLines(answer.body)) {
      hear(line);
      if (["done", "diverged", "error"].includes(line.type)) return line;
    }
    return lost;
  } catch {
    return lost;
  }
}
