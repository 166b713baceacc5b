"""Flow files made to cost much: small files that a careless reader pays for in memory or time.

Run as a script, it reads each in a process of its own and prints what that took, as JSON.
"""

import json
import os
import resource
import sys
import types
from pathlib import Path

MIB = 2**20
SIZE = 2 * MIB
"""Bytes of a bomb, or a little less."""

FLOW = (Path(__file__).parent / "flow" / "data" / "flow_v1.json").read_text(encoding="utf-8")
VERSION = '{"schema_version":1,'


def fill(unit, before="", after=""):
    """Return text of the size of a bomb: a unit repeated between a beginning and an end."""
    return before + unit * ((SIZE - len(before) - len(after)) // len(unit.encode())) + after


def number_keys(count):
    return ",".join(f'"{key:x}":1' for key in range(count))


def change(**fields):
    """Return a flow file with some top-level fields replaced by raw JSON text."""
    document = {name: json.dumps(value) for name, value in json.loads(FLOW).items()} | fields
    return "{" + ",".join(f'"{name}":{value}' for name, value in document.items()) + "}"


def change_entry(name, /, **fields):
    """Return a flow file in which the first entry of a list has other fields, as raw JSON text."""
    entry = {key: json.dumps(value) for key, value in json.loads(FLOW)[name][0].items()} | fields
    return change(
        **{name: "[{" + ",".join(f'"{key}":{value}' for key, value in entry.items()) + "}]"}
    )


def repeat_entry(name, /, **fields):
    """Return a flow file with as many copies of an entry as fit, some of its fields replaced."""
    entry = json.dumps(json.loads(FLOW)[name][0] | fields) + ","
    return change(**{name: fill(entry, "[", json.dumps(json.loads(FLOW)[name][0]) + "]")})


BOMBS = {
    "nested lists": lambda: fill("["),
    "nested objects": lambda: fill('{"a":'),
    "nested closed": lambda: change(device="[" * (SIZE // 2) + "]" * (SIZE // 2)),
    "a million unknown fields": lambda: change(device='"",' + number_keys(SIZE // 10)),
    "unknown fields everywhere": lambda: repeat_entry("layers", a=1, b=2, c=3, d=4, e=5),
    "small objects": lambda: VERSION + fill("{},", '"layers":[', "{}]}"),
    "small objects, unknown field": lambda: change(device='"",' + fill("{},", '"x":[', "{}]")),
    "small objects with a field": lambda: VERSION + fill('{"a":1},', '"layers":[', "{}]}"),
    "empty lists": lambda: VERSION + fill("[],", '"layers":[', "[]]}"),
    "empty lists for values": lambda: change(loss=fill("[],", "[", "[]]")),
    "ensemble of a million": lambda: change(loss=fill("1,", "[", "1]")),
    "one value of a million": lambda: change_entry("layers", gain=fill("1,", "[", "1]")),
    "wrong values": lambda: change_entry("layers", gain=fill('"x",', "[", "1]")),
    "long shape": lambda: change_entry("layers", shape=fill("1,", "[", "1]")),
    "wrong shape": lambda: change_entry("layers", shape=fill("-1,", "[", "1]")),
    "many aliases": lambda: change_entry("parameters", aliases=fill("7,", "[", "1]")),
    "short aliases": lambda: change_entry("parameters", aliases=fill('"",', "[", '""]')),
    "many bins": lambda: change_entry(
        "layers",
        statistics=json.dumps(json.loads(FLOW)["layers"][0]["statistics"]).replace(
            '"counts": [', fill("-1,", '"counts": [')
        ),
    ),
    "many positions": lambda: change_entry("residuals", parameters=fill("-1,", "[", "1]")),
    "many seeds": lambda: change(seeds=fill("0,", "[", "0]")),
    "many networks": lambda: change(
        seeds=json.dumps(list(range(90_000))), loss=json.dumps([0.5] * 90_000)
    ),
    "wrong types in many layers": lambda: repeat_entry("layers", name=7, shape={}, gain=[]),
    "right layers": lambda: repeat_entry("layers"),
    "right parameters": lambda: repeat_entry("parameters"),
    "unknown settings": lambda: change(spec="{" + number_keys(SIZE // 10) + "}"),
    "a long unknown setting": lambda: change(spec=fill("d", '{"', '":1}')),
    "a long activation": lambda: change(spec=fill("s", '{"activation":"', '"}')),
    "a setting named self": lambda: change(spec='{"self":1,"depth":2}'),
    "a long list for a setting": lambda: change(spec=fill("1,", '{"depth":[', "1]}")),
    "long whole number": lambda: change(loss="9" * SIZE),
    "long fraction": lambda: change(loss="0." + "7" * SIZE),
    "long exponent": lambda: change(loss="1e" + "9" * SIZE),
    "long whole version": lambda: '{"schema_version":' + "9" * SIZE + "}",
    "long text": lambda: change(device=fill("<b>", '"', '"')),
    "long name": lambda: change_entry("layers", name=fill("é", '"', '"')),
    "long unknown field": lambda: change(device=fill("x", '"","', '":1')),
    "wide text": lambda: change(device=fill("1,", '"🙂","x":[', "1]")),
    "escapes": lambda: fill(r"\"", '"'),
    "escaped surrogates": lambda: change(device=fill(r"\ud800", '"', '"')),
    "short surrogate": lambda: change(device=r'"\ud800"'),
    "surrogate field": lambda: change(device=r'"","\ud800":1'),
    "surrogate name": lambda: change_entry("layers", name=r'"\udfff"'),
    "control characters": lambda: change_entry("layers", role=r'"\u001b[2J\u0000\n\u202e"'),
    "control characters in a setting": lambda: change(spec=r'{"\u001b[2J\n":1}'),
    "field given twice": lambda: change(device='"",' + ",".join(['"device":1'] * 100_000)),
    "many marks": lambda: fill("\ufeff"),
    "nothing but NUL": lambda: fill("\0"),
    "nothing but space": lambda: fill(" "),
    "bare constants": lambda: change(loss=fill("NaN,", "[", "NaN]")),
    "commas": lambda: fill(",", "[", "]"),
    "strings": lambda: VERSION + fill('"ab",', '"layers":[', '""]}'),
    "lists of one": lambda: VERSION + fill("[1],", '"parameters":[', "[]]}"),
    "fractions": lambda: change(loss=fill("1.5,", "[", "1]")),
    "not UTF-8": lambda: b"\xff" * SIZE,
    "UTF-16": lambda: FLOW.encode("utf-16"),
    "UTF-32": lambda: FLOW.encode("utf-32"),
}


def _read_peak():
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measure(name):
    """Return what reading a bomb takes in a process of its own: MiB, seconds, the answer."""
    content = BOMBS[name]()
    content = content.encode() if isinstance(content, str) else content
    source, sink = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(source)
        answer = _read(content)
        with os.fdopen(sink, "w", encoding="ascii") as pipe:
            pipe.write(json.dumps(answer))
        os._exit(0)
    os.close(sink)
    with os.fdopen(source, encoding="ascii") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return {"size": len(content) / MIB, **(json.loads(text) if text else {"answer": "crashed"})}


def _read(content):
    from chainrule.errors import FlowFileError
    from chainrule.flow.loading import decode_flow

    before = _read_peak()
    try:
        decode_flow(content)
        answer, message = "flow", ""
    except FlowFileError as error:
        answer, message = "FlowFileError", str(error)
    except BaseException as error:
        answer, message = type(error).__name__, str(error)[:2000]
    peak = _read_peak()
    seconds = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    return {"memory": peak - before, "seconds": seconds, "answer": answer, "message": message}


def main():
    """Measure every bomb, without torch: it would only slow the start."""
    package = types.ModuleType("chainrule")
    package.__path__ = [sys.argv[1]]
    sys.modules["chainrule"] = package
    from chainrule.flow.loading import decode_flow

    decode_flow(FLOW)  # what is built once on first use counts for nobody
    json.dump({name: measure(name) for name in BOMBS}, sys.stdout)


if __name__ == "__main__":
    main()
