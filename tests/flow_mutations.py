"""Flow files changed at random: each must load as a flow or be refused with a `FlowFileError`.

`python tests/flow_mutations.py 100000` makes that many rounds from a new seed, and prints the seed
and the round of what fails.
"""

import json
import random
import sys
import time

from chainrule.errors import FlowFileError
from chainrule.flow.blocks import build_profile, group_calls, grow_tree
from chainrule.flow.loading import decode_flow

LONGEST = 1000
"""Most characters of the sentence about a refused file."""

_VALUES = (
    *(None, True, False, 0, 1, -1, 99, 2**31, 2**63, 10**30, 0.5, -0.0, 1e308, 1e-320),
    *("", "NaN", "Infinity", "-Infinity", "nan", "1.5", "ReLU", "frozen", "<script>", "\ud800"),
    *(
        [],
        [0],
        [[]],
        [0.5, "NaN"],
        {},
        {"a": {}},
        [{}],
        {"depth": 2},
        "x" * 3000,
        "x." * 90,
        "0." * 900,
        list(range(70)),
    ),
)
_BYTES = (b"", b"0", b"-", b"1e999", b"NaN", b'"', b"[", b"]", b"{", b"}", b",", b":", b"\\ud800")
_BYTES += (b"\x00", b"\xff", b"\xef\xbb\xbf", b"null", b'"a":1,', b"[" * 3000, b"9" * 5000)


def list_places(node, path=()):
    """Return the paths of all values in a JSON document."""
    places = []
    for step, value in node.items() if isinstance(node, dict) else enumerate(node):
        places.append((*path, step))
        if isinstance(value, dict | list):
            places += list_places(value, places[-1])
    return places


def _get_place(document, path):
    for step in path[:-1]:
        document = document[step]
    return document, path[-1]


def change_structure(text, chance):
    """Return JSON text with a few values replaced, removed, repeated, added or swapped."""
    document = json.loads(text)
    for _ in range(chance.randint(1, 3)):
        node, last = _get_place(document, chance.choice(list_places(document)))
        how = chance.choice(("replace", "replace", "remove", "repeat", "add", "swap"))
        if how == "replace":
            node[last] = chance.choice(_VALUES)
        elif how == "remove":
            del node[last]
        elif how == "swap":
            other, end = _get_place(document, chance.choice(list_places(document)))
            node[last] = json.loads(json.dumps(other[end]))
        elif isinstance(node, list):
            node.insert(last, node[last] if how == "repeat" else chance.choice(_VALUES))
        else:
            node[f"{last}x"] = node[last] if how == "repeat" else chance.choice(_VALUES)
        if not document:
            break
    return json.dumps(document, separators=(",", ":")).encode()


def change_bytes(text, chance):
    """Return a file with a few bytes replaced, removed, inserted, or the rest cut off."""
    content = text.encode()
    for _ in range(chance.randint(1, 3)):
        start = chance.randrange(len(content) + 1)
        if chance.random() < 0.1:
            content = content[:start]
        piece = chance.choice(_BYTES) if chance.random() < 0.7 else chance.randbytes(4)
        content = content[:start] + piece + content[start + chance.choice((0, 0, 1, 3, 40)) :]
    return content


def read_flow(flow):
    """Use what a flow offers; nothing of it may fail, and it survives being saved."""
    flow.to_records()
    flow.factors()
    for part in (flow, *flow.layers, *flow.parameters, *flow.residuals, *flow.attentions):
        assert len(repr(part)) <= 200
        assert repr(part).isprintable()
    _ = [call.label and call.statistics.dead_share for call in flow.layers if call.statistics]
    for part in (*flow.weight_layers, *flow.parameters):
        assert part.grad_to_weight is None or part.grad_to_weight.values
    _ = [each.share for each in flow.residuals], flow.gradient_ratio, flow.delta_ratio
    _ = flow.gradient_norm, flow.clip_factor, flow.output_error
    assert grow_tree(flow).size == sum(len(block.calls) for block in group_calls(flow))
    build_profile(flow)
    back = decode_flow(flow.to_json())
    assert back == flow
    assert hash(back) == hash(flow)


def _read(content):
    """Return the flow, or `None` if the file was refused with a short sentence."""
    try:
        return decode_flow(content)
    except FlowFileError as error:
        sentence = str(error)
    assert len(sentence) <= LONGEST
    assert sentence.isprintable()
    return None


def search(texts, rounds, seed, read=read_flow):
    """Change flow files at random and read them.

    Args:
        texts: Flow files.
        rounds: How many changed files to read.
        seed: Where the random choices start.
        read: Called with every flow that was accepted.

    Returns:
        How many files were accepted.

    Raises:
        AssertionError: If a file ends in anything but a flow or a short `FlowFileError`.
    """
    accepted = 0
    for at in range(rounds):
        chance = random.Random(f"{seed}-{at}")
        change = chance.choice((change_structure, change_bytes))
        content = change(chance.choice(texts), chance)
        try:
            flow = _read(content)
            if flow is not None:
                accepted += 1
                read(flow)
        except Exception as error:
            raise AssertionError(
                f"seed {seed}, round {at}: {error!r}; {content[:2000]!r}"
            ) from error
    return accepted


def build_texts():
    """Return flow files of networks and models of several kinds."""
    import torch
    from torch import nn

    from chainrule import NetworkSpec, inspect, simulate

    spec = NetworkSpec(depth=2, width=4, batch_size=5, activation="relu", init="he")
    blocks = spec.replace(residual="plain", normalization="layernorm", clip_norm=0.1, seed=3)
    overflowing = spec.replace(depth=8, activation="identity", init="random", weight_std=1e6)
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0)
    x = torch.randn(3, 2, 4)
    return [
        simulate(spec, 1).to_json(),
        simulate(blocks, 2).to_json(),
        simulate(overflowing, 2).to_json(),
        inspect(model, lambda m: m(x).square().mean()).to_json(),
    ]


if __name__ == "__main__":
    count, start = int(sys.argv[1]), int(time.time())
    print(f"seed {start}: {search(build_texts(), count, start)} of {count} accepted")
