"""Flows in files: there and back, and what happens to damaged ones."""

import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import chainrule
from chainrule.diagnosis.diagnosis import diagnose
from chainrule.errors import FlowFileError, InspectionError
from chainrule.flow.gradient_flow import SCHEMA_VERSION, GradientFlow
from chainrule.flow.loading import MAX_FIELDS, NEW_IN_3, Limits, decode_flow, load_flow
from chainrule.flow.records import (
    ActivationStatistics,
    AttentionFlow,
    LayerFlow,
    ParameterFlow,
)
from chainrule.measure.inspection import inspect
from chainrule.measure.networks import build_network, make_loss
from chainrule.measure.simulation import simulate
from chainrule.spec.network_spec import NetworkSpec
from flow_bombs import BOMBS
from flow_mutations import build_texts, search
from zoo import ZOO

SCRIPT = Path(__file__).parents[1] / "flow_bombs.py"
OLD = Path(__file__).parent / "data" / "flow_v1.json"
SOURCES = Path(chainrule.__file__).parent

SPEC = NetworkSpec(depth=3, width=4, batch_size=5, activation="relu", init="he")
BLOCKS = SPEC.replace(residual="plain", normalization="layernorm", clip_norm=0.1, seed=3)
OVERFLOWING = SPEC.replace(depth=4, activation="identity", init="random", weight_std=1e6)
"""Its loss is infinite, its first gradients are undefined; at twice the depth its values too."""


def inspect_model_with_gaps():
    """A model with frozen, unreached, integer and untouched parts."""
    model = nn.Sequential(nn.Embedding(4, 3), nn.Flatten(), nn.Linear(6, 1), nn.Sigmoid())
    model.spare = nn.Linear(2, 2)
    model[2].bias.requires_grad_(False)
    tokens = torch.tensor([[0, 1], [2, 3]])
    return inspect(model, lambda m: m[3](m[2](m[1](m[0](tokens)))).mean())


FLOWS = {
    "simulated": lambda: simulate(SPEC, 3),
    "residual": lambda: simulate(BLOCKS, [4, 9]),
    "single": lambda: simulate(SPEC, 1),
    "float64": lambda: simulate(SPEC.replace(dtype="float64"), 2),
    "inspected": lambda: inspect(build_network(BLOCKS), make_loss(BLOCKS)),
    "with gaps": inspect_model_with_gaps,
    "overflowing": lambda: simulate(OVERFLOWING, 3),
    "undefined": lambda: simulate(OVERFLOWING.replace(depth=8), 2),
}


@pytest.fixture(params=FLOWS)
def flow(request):
    return FLOWS[request.param]()


@pytest.fixture(scope="module")
def text():
    return simulate(BLOCKS, 3).to_json()


def damage(text, *path, value):
    """Return the JSON text with the value at a path replaced, or removed if it is `...`."""
    document = json.loads(text)
    place = document
    for step in path[:-1]:
        place = place[step]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return json.dumps(document)


def find_places(node, path=()):
    """Return the paths of all values in a JSON document, of a list's only the first two."""
    inner = node.items() if isinstance(node, dict) else enumerate(node[:2])
    places = []
    for step, value in inner:
        places.append((*path, step))
        if isinstance(value, dict | list):
            places += find_places(value, places[-1])
    return places


def read_all(flow):
    flow.to_records()
    flow.factors()
    diagnose(flow)
    _ = [call.label and call.statistics.dead_share for call in flow.layers if call.statistics]
    _ = [part.grad_to_weight for part in (*flow.weight_layers, *flow.parameters)]
    _ = flow.gradient_ratio, flow.delta_ratio, flow.gradient_norm, flow.clip_factor
    decode_flow(flow.to_json())


class TestRoundTrip:
    def test_changes_no_figure(self, flow, tmp_path):
        """Compared as JSON text, in which NaN equals NaN."""
        before = flow.to_json()
        flow.save(tmp_path / "flow.json")
        back = load_flow(tmp_path / "flow.json")
        assert (tmp_path / "flow.json").read_text(encoding="utf-8") == before
        assert back.to_json() == before

    def test_keeps_what_the_flow_says(self, flow, tmp_path):
        flow.save(str(tmp_path / "flow.json"))
        back = load_flow(str(tmp_path / "flow.json"))
        for field in ("spec", "seeds", "chain", "device", "torch_version", "chainrule_version"):
            assert getattr(back, field) == getattr(flow, field)
        assert back.schema_version == SCHEMA_VERSION
        assert back.ensemble_size == flow.ensemble_size
        assert repr(back.loss.values) == repr(flow.loss.values)
        assert [call.label for call in back.layers] == [call.label for call in flow.layers]
        assert back.factors() == flow.factors()
        assert back.weight_gradient_norms == flow.weight_gradient_norms
        assert repr(back.to_records()) == repr(flow.to_records())

    def test_is_an_equal_flow(self, flow):
        back = decode_flow(flow.to_json())
        assert back == flow
        assert hash(back) == hash(flow)

    def test_of_one_changed_member_is_another_flow(self):
        flow = simulate(BLOCKS, 3)
        document = json.loads(flow.to_json())
        members = document["layers"][0]["statistics"]["mean"]
        members[members.index(max(members))] += 1.0
        other = decode_flow(json.dumps(document))
        assert float(other.layers[0].statistics.mean) == float(flow.layers[0].statistics.mean)
        assert other != flow
        assert flow != simulate(BLOCKS, 2)

    def test_gives_strict_json_with_overflow_spelled_out(self):
        def refuse(constant):
            raise AssertionError(f"{constant} is no JSON")

        flow = simulate(OVERFLOWING, 3)
        document = json.loads(flow.to_json(), parse_constant=refuse)
        assert document["loss"] == ["Infinity"] * 3
        assert document["layers"][0]["gain"] == ["NaN"] * 3
        assert decode_flow(flow.to_json()).loss.values == (float("inf"),) * 3

    @pytest.mark.parametrize("encoding", [str, str.encode])
    def test_reads_text_and_bytes(self, text, encoding):
        assert decode_flow(encoding(text)).to_json() == decode_flow(text).to_json()


class TestDamage:
    @pytest.mark.parametrize(
        "content",
        [b"", b"{", b"not json", b"\x00\xff", b"\xff\xfe{\x00", b"[" * 100_000],
        ids=["empty", "brace", "words", "binary", "utf-16", "nested"],
    )
    def test_what_is_not_json_is_refused(self, content):
        with pytest.raises(FlowFileError, match="must hold JSON as written by chainrule"):
            decode_flow(content)

    @pytest.mark.parametrize(
        "content", ["[]", "3", "null", '"flow"', "{}", '{"schema_version": "1"}']
    )
    def test_what_is_not_a_flow_is_refused(self, content):
        with pytest.raises(
            FlowFileError,
            match=f"must state a schema_version from 1 to {SCHEMA_VERSION}; this one has",
        ):
            decode_flow(content)

    @pytest.mark.parametrize("share", [0.01, 0.5, 0.9, 0.999])
    def test_a_truncated_file_is_refused(self, text, share):
        with pytest.raises(FlowFileError, match="must hold JSON"):
            decode_flow(text[: int(share * len(text))])

    @pytest.mark.parametrize("version", [SCHEMA_VERSION + 1, 10**6])
    def test_a_newer_version_asks_for_an_upgrade(self, text, version):
        with pytest.raises(
            FlowFileError, match=rf"schema version {version}.*pip install --upgrade"
        ):
            decode_flow(damage(text, "schema_version", value=version))

    @pytest.mark.parametrize("version", [0, -1, None, 1.5, ...])
    def test_no_known_version_is_refused(self, text, version):
        with pytest.raises(
            FlowFileError, match=f"must state a schema_version from 1 to {SCHEMA_VERSION}"
        ):
            decode_flow(damage(text, "schema_version", value=version))

    @pytest.mark.parametrize(
        ("path", "value"),
        [
            (("loss",), ...),
            (("loss",), "high"),
            (("loss",), []),
            (("loss",), None),
            (("chain",), "perhaps"),
            (("seeds",), 3),
            (("seeds", 1), 0.5),
            (("layers",), ...),
            (("layers",), {}),
            (("layers", 1), None),
            (("layers", 1, "role"), "weights"),
            (("layers", 1, "shape", 0), "wide"),
            (("layers", 1, "statistics", "mean"), ...),
            (("layers", 1, "statistics", "std"), [0.1, "x", 0.2]),
            (("layers", 1, "statistics", "histogram", "counts"), 3),
            (("layers", 1, "gradient"), 3.0),
            (("parameters", 0, "status"), "lost"),
            (("parameters", 0, "norm"), ...),
        ],
        ids=lambda part: ".".join(map(str, part)) if isinstance(part, tuple) else str(part),
    )
    def test_wrong_and_missing_fields_are_named(self, text, path, value):
        place = r"\.".join(map(str, path))
        with pytest.raises(FlowFileError, match=rf"damaged at {place}.*Measure again") as caught:
            decode_flow(damage(text, *path, value=value))
        words = ("isinstance", "instance of", "tuple", "dictionary")
        assert not any(word in str(caught.value) for word in words), "about code, not the file"

    @pytest.mark.parametrize(
        ("field", "value", "problem"),
        [
            ("depth", 0, "depth: must be a whole number from 1 to 1000; got 0."),
            ("init", "hee", "init: unknown 'hee'. Did you mean 'he'? Known: "),
            ("colour", "red", "colour: no such field. "),
        ],
    )
    def test_an_illegal_specification_is_explained_as_elsewhere(self, text, field, value, problem):
        with pytest.raises(FlowFileError) as caught:
            decode_flow(damage(text, "spec", field, value=value))
        assert str(caught.value).startswith(f"The flow file is damaged at spec: {problem}")
        assert re.search(r"[^.]\. Measure again and save a new one\.$", str(caught.value))

    @pytest.mark.parametrize(
        ("path", "value"),
        [
            (("loss",), [1.0, 2.0]),
            (("layers", 2, "gain"), 1.0),
            (("layers", 0, "statistics", "mean"), [1.0] * 4),
            (("parameters", 1, "grad_norm"), [1.0, 2.0]),
            (("seeds",), [0, 1]),
        ],
        ids=lambda part: ".".join(map(str, part)) if isinstance(part, tuple) else "",
    )
    def test_figures_of_ensembles_of_several_sizes_are_refused(self, text, path, value):
        with pytest.raises(FlowFileError, match="damaged at"):
            decode_flow(damage(text, *path, value=value))

    @pytest.mark.parametrize("parent", [0, -1, 5, 1000])
    def test_a_parent_that_does_not_follow_is_refused(self, text, parent):
        with pytest.raises(FlowFileError, match=r"damaged at layers\.5\.parent.*; got"):
            decode_flow(damage(text, "layers", 5, "parent", value=parent))

    def test_any_one_changed_value_is_refused_or_harmless(self):
        """Whatever a file says: once it is loaded, nothing that reads the flow may fail."""
        text = simulate(BLOCKS.replace(depth=1), 2).to_json()
        harmful = []
        for place in find_places(json.loads(text)):
            for value in (None, 0, -1, 99, 0.5, "", "NaN", [], {}, 1e308, ...):
                try:
                    flow = decode_flow(damage(text, *place, value=value))
                except FlowFileError:
                    continue
                try:
                    read_all(flow)
                except Exception as error:
                    harmful.append((place, value, error))
        assert harmful == []

    def test_nesting_inside_a_flow_is_refused(self, text):
        nested = text.replace('"chain":', '"extra":' + "[" * 900 + "]" * 900 + ',"chain":')
        with pytest.raises(FlowFileError):
            decode_flow(nested)

    def test_modules_nested_thousandfold_can_be_read(self, text):
        """A long chain of parents must not exhaust Python's stack when somebody reads the flow."""
        document = json.loads(text)
        (leaf,) = document["layers"][-1:]
        nested = [leaf | {"parent": at + 1, "role": "other"} for at in range(2000)]
        document["layers"] = [*nested, leaf | {"parent": None, "role": "residual"}]
        assert len(decode_flow(json.dumps(document)).factors()) == 1


class TestReading:
    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(FlowFileError, match=r"Could not read .*lost\.json: No such file"):
            load_flow(tmp_path / "lost.json")

    def test_a_folder_is_no_file(self, tmp_path):
        with pytest.raises(FlowFileError, match=r"Could not read .*: Is a directory"):
            load_flow(tmp_path)

    def test_a_path_that_cannot_be_is_an_error_of_the_same_kind(self):
        with pytest.raises(FlowFileError):
            load_flow("flow\0.json")

    def test_a_huge_file_is_not_read(self, tmp_path):
        (tmp_path / "huge.json").write_bytes(b" " * (2**20 + 1))
        with pytest.raises(FlowFileError, match=r"at most 1 MiB; .*huge\.json has more"):
            load_flow(tmp_path / "huge.json", limits=Limits(size=2**20))

    def test_a_byte_order_mark_does_no_harm(self, text, tmp_path):
        (tmp_path / "marked.json").write_bytes(b"\xef\xbb\xbf" + text.encode())
        assert load_flow(tmp_path / "marked.json").to_json() == text


class TestSaving:
    def test_replaces_an_older_file(self, tmp_path):
        simulate(SPEC, 1).save(tmp_path / "flow.json")
        simulate(SPEC, [5]).save(tmp_path / "flow.json")
        assert load_flow(tmp_path / "flow.json").seeds == (5,)

    def test_that_fails_leaves_the_older_file_untouched(self, tmp_path, monkeypatch):
        simulate(SPEC, 1).save(tmp_path / "flow.json")
        before = (tmp_path / "flow.json").read_bytes()
        monkeypatch.setattr("os.access", lambda *_: False)
        with pytest.raises(FlowFileError, match=r"folder must be writable; .* is not"):
            simulate(SPEC, 2).save(tmp_path / "flow.json")
        assert (tmp_path / "flow.json").read_bytes() == before

    def test_into_a_missing_folder_says_so(self, tmp_path):
        with pytest.raises(FlowFileError, match=r"existing folder; there is no .*nowhere"):
            simulate(SPEC, 1).save(tmp_path / "nowhere" / "flow.json")


GOOD = simulate(BLOCKS.replace(depth=2), 2).to_json()
PLACES = find_places(json.loads(GOOD))
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["NaN", "Infinity", "-Infinity", "nan", "1.5", "ReLU", "<script>", "\ud800"]),
    st.lists(st.floats() | st.just("NaN"), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


def mutate(node, path, value, how):
    """Change a document in place: replace, remove, repeat or add at a path."""
    for step in path[:-1]:
        node = node[step]
    last = path[-1]
    if how == "replace":
        node[last] = value
    elif how == "remove":
        del node[last]
    elif isinstance(node, list):
        node.insert(last, node[last] if how == "repeat" else value)
    else:
        node[f"{last}x"] = node[last] if how == "repeat" else value


def are_same(written, read):
    """Whether a document says exactly what a loaded flow says; a spec may leave out defaults."""
    if isinstance(written, dict) and isinstance(read, dict):
        return set(written) == set(read) and all(are_same(written[k], read[k]) for k in written)
    if isinstance(written, list) and isinstance(read, list):
        return len(written) == len(read) and all(map(are_same, written, read))
    if isinstance(written, list) and len(written) == 1:  # an ensemble of one
        return are_same(written[0], read)
    return written == read and isinstance(written, bool) is isinstance(read, bool)


class TestAnyMutation:
    """A file that was changed loads as exactly what it says, or is refused; nothing in between."""

    @settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(PLACES),
                VALUES,
                st.sampled_from(("replace", "replace", "remove", "repeat", "add")),
            ),
            min_size=1,
            max_size=2,
        )
    )
    def test_of_the_structure(self, changes):
        document = json.loads(GOOD)
        for place, value, how in changes:
            try:
                mutate(document, place, value, how)
            except (KeyError, IndexError, TypeError):  # the first change took the place away
                continue
        text = json.dumps(document)
        try:
            flow = decode_flow(text)
        except FlowFileError:
            return
        read = json.loads(flow.to_json())
        if document["schema_version"] == 1:  # of a file without residual connections
            document["schema_version"] = SCHEMA_VERSION
        if document["spec"] is not None:
            document["spec"] = read["spec"] | document["spec"]
        assert are_same(document, read)
        read_all(flow)

    @settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.lists(
            st.tuples(st.integers(0, len(GOOD)), st.integers(0, 8), st.binary(max_size=6)),
            min_size=1,
            max_size=3,
        )
    )
    def test_of_the_bytes(self, changes):
        content = GOOD.encode()
        for start, length, replacement in changes:
            content = content[:start] + replacement + content[start + length :]
        try:
            flow = decode_flow(content)
        except FlowFileError:
            return
        read_all(flow)

    @settings(max_examples=70, deadline=None)
    @given(st.text() | st.binary())
    def test_of_anything(self, content):
        with pytest.raises(FlowFileError):
            decode_flow(content)


class TestClosedSchema:
    """Not only types: what is said must be possible."""

    @pytest.mark.parametrize(
        ("path", "value", "requirement"),
        [
            (("extra",), 1, "is no field that chainrule writes; got 1"),
            (("layers", 0, "html"), "<b>", "is no field that chainrule writes; got '<b>'"),
            (("layers", 1, "gradient", "norm"), [-1.0, 1.0, 1.0], "must be zero, positive or"),
            (("layers", 1, "gain"), [1.0, 1.0, "-Infinity"], "must be zero, positive or undefined"),
            (("layers", 1, "statistics", "std"), [-0.1] * 3, "must be zero, positive or undefined"),
            (("layers", 1, "statistics", "zero_share"), [0.1, 1.2, 0], "must be a share from 0 to"),
            (("layers", 1, "statistics", "non_finite"), [0, 0.5, 0], "must be a whole number"),
            (("layers", 1, "statistics", "non_finite"), ["NaN", 0, 0], "must be a whole number"),
            (("layers", 1, "statistics", "min"), [1e9] * 3, "must not be above max"),
            (("layers", 1, "statistics", "histogram", "low"), 1e9, "must not be above high"),
            (("layers", 1, "statistics", "histogram", "sampled"), 1, "must add up to 1; got"),
            (
                ("layers", 1, "statistics", "histogram", "counts"),
                [],
                "must have at least 1 entries",
            ),
            (("layers", 1, "statistics", "histogram", "counts", 0), -1, "greater than or equal to"),
            (("layers", 0, "layer"), 9, "must be null or one of the 3 weight layers; got 9"),
            (("layers", 0, "layer"), 0, "should be greater than or equal to 1; got 0"),
            (("layers", 0, "name"), 7, "should be a valid string; got 7"),
            (("parameters", 0, "status"), "frozen", "must be null unless status is 'measured'"),
            (("parameters", 0, "grad_norm"), None, "must be a number where status is 'measured'"),
            (("parameters", 0, "shape", 0), 2**63, "less than"),
            (("loss",), "1.5", 'must be a number of float64, or "Infinity", "-Infinity" or "NaN"'),
            (("loss",), True, "must be a number of float64"),
            (("chain",), 1, "should be a valid boolean; got 1"),
            (("seeds",), [1, 1, 2], "must each occur once; got (1, 1, 2)"),
            (("seeds", 0), -1, "greater than or equal to 0; got -1"),
            (("spec", "depth"), "3", "must be written as 3; got '3'"),
            (("spec", "activation"), "ReLU", "activation: unknown 'ReLU'"),
        ],
        ids=lambda part: ".".join(map(str, part)) if isinstance(part, tuple) else "",
    )
    def test_what_cannot_be_is_refused(self, text, path, value, requirement):
        with pytest.raises(FlowFileError) as caught:
            decode_flow(damage(text, *path, value=value))
        assert requirement in str(caught.value)
        assert str(caught.value).endswith("Measure again and save a new one.")

    def test_weight_layers_are_numbered_without_a_gap(self, text):
        document = json.loads(text)
        document["parameters"][0]["layer"] = 3
        with pytest.raises(FlowFileError, match="must number the 2 weight layers 1 to 2"):
            decode_flow(json.dumps(document))

    @pytest.mark.parametrize("name", ["loss", "chain", "seeds"])
    def test_a_field_given_twice_is_refused(self, text, name):
        twice = text.replace(f'"{name}":', f'"{name}":null,"{name}":', 1)
        with pytest.raises(FlowFileError, match=f"'{name}' is given twice"):
            decode_flow(twice)

    @pytest.mark.parametrize("token", ["NaN", "Infinity", "-Infinity", "1e999"])
    def test_numbers_that_json_does_not_have_are_refused(self, text, token):
        with pytest.raises(FlowFileError, match=r"must be in quotes|must be a number of float64"):
            decode_flow(re.sub(r'"loss":\[[^,]*', f'"loss":[{token}', text))

    @pytest.mark.parametrize("name", sorted(ZOO))
    def test_every_animal_of_the_zoo_can_be_saved_and_loaded(self, name):
        try:
            flow = inspect(*ZOO[name]())
        except (InspectionError, NotImplementedError):
            pytest.skip("cannot be measured")
        assert decode_flow(flow.to_json()).to_json() == flow.to_json()


class TestLimits:
    def test_of_size_entries_members_and_text(self, text):
        size = len(text.encode())
        assert decode_flow(text, limits=Limits(size=size, entries=24, members=3, text=40))
        for limits, problem in (
            (Limits(size=size // 2), "must be at most"),
            (Limits(entries=2), "at most 2 entries in layers; this one has"),
            (Limits(members=2), "at most 2 entries in loss; this one has 3"),
            (Limits(text=3), "must have at most 3 characters"),
        ):
            with pytest.raises(FlowFileError, match=problem):
                decode_flow(text, limits=limits)

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            ("[" * 10**6, "nested too deeply"),
            ('{"a":' * 10**5, "nested too deeply"),
            ('{"schema_version":3,"layers":[' + "{}," * 10**6 + "{}]}", "at most 100,000 entries"),
            (
                '{"schema_version":3,"layers":[' + "{}," * 90_000 + "{}]}",
                "layers.0.name: this field must be there",
            ),
            ('{"schema_version":' + "9" * 10**6 + "}", "a whole number of 1000000 digits"),
            ('{"schema_version":' + "9" * 19 + "}", "Upgrade with"),
            ('{"schema_version":3,"x":"' + "<b>" * 10**6 + '"}', "layers: this field must"),
            (
                "{" + ",".join(f'"{at}":1' for at in range(10**5)) + "}",
                f"more than {MAX_FIELDS} fields",
            ),
        ],
        ids=["lists", "objects", "entries", "empty", "integer", "version", "text", "fields"],
    )
    def test_hostile_files_end_in_one_short_sentence(self, content, problem):
        with pytest.raises(FlowFileError) as caught:
            decode_flow(content)
        assert problem in str(caught.value)
        assert len(str(caught.value)) < 400

    def test_no_part_has_more_fields_than_are_read(self):
        parts = (GradientFlow, LayerFlow, ParameterFlow, ActivationStatistics, AttentionFlow)
        assert max(len(fields(part)) for part in parts) <= MAX_FIELDS
        assert len(NetworkSpec.model_fields) <= MAX_FIELDS


@pytest.fixture(scope="module")
def bombs():
    """What reading each bomb took, measured in a process of its own."""
    run = subprocess.run(
        [sys.executable, SCRIPT, SOURCES], capture_output=True, text=True, check=True
    )
    return json.loads(run.stdout)


class TestBombs:
    """Files made to cost much memory or time, or to end in something else than a sentence."""

    @pytest.mark.parametrize("name", list(BOMBS))
    def test_costs_little_and_ends_in_a_sentence(self, name, bombs):
        """At most 50 MiB for a MiB that was sent, and twice that here, for a busy machine."""
        bomb = bombs[name]
        assert bomb["answer"] in ("flow", "FlowFileError"), bomb
        assert bomb["memory"] <= 100 * bomb["size"] + 10
        assert len(bomb["message"].encode()) <= 1024
        assert bomb["message"].isprintable()


class TestMutations:
    def test_a_thousand_changed_files_are_flows_or_refused(self):
        accepted = search(build_texts(), rounds=1000, seed=0)
        assert 10 < accepted < 900


class TestOldFiles:
    """Version 1 called the residual stream of a connection "trunk"."""

    def test_are_read(self):
        written = json.loads(OLD.read_text(encoding="utf-8"))
        flow = load_flow(OLD)
        assert written["schema_version"] == 1
        assert flow.schema_version == SCHEMA_VERSION
        assert [each.stream for each in flow.residuals] == [0, 0]
        assert flow.loss == written["loss"]
        back = json.loads(flow.to_json())
        for each in back["residuals"]:
            each["trunk"] = each.pop("stream")
        for name in NEW_IN_3:
            assert back.pop(name) in (None, [])
        assert back | {"schema_version": 1} == written

    def test_come_back_as_files_of_today(self):
        flow = load_flow(OLD)
        assert decode_flow(flow.to_json()) == flow
        assert "trunk" not in flow.to_json()

    @pytest.mark.parametrize("version", [1, 2])
    @pytest.mark.parametrize("name", NEW_IN_3)
    def test_know_nothing_of_what_came_later(self, version, name):
        document = json.loads(load_flow(OLD).to_json())
        if version == 1:
            for each in document["residuals"]:
                each["trunk"] = each.pop("stream")
        for other in NEW_IN_3:
            if other != name:
                del document[other]
        with pytest.raises(FlowFileError, match=f"{name}: must not be there in version"):
            decode_flow(json.dumps(document | {"schema_version": version}))
        del document[name]
        assert decode_flow(json.dumps(document | {"schema_version": version})) == load_flow(OLD)

    @pytest.mark.parametrize(("version", "name"), [(1, "stream"), (2, "trunk")])
    def test_have_the_names_of_their_own_version(self, version, name):
        document = json.loads(load_flow(OLD).to_json())
        for name_of_new in NEW_IN_3:
            del document[name_of_new]
        for each in document["residuals"]:
            each[name] = each.pop("stream")
        with pytest.raises(FlowFileError, match=r"residuals\.0\.stream"):
            decode_flow(json.dumps(document | {"schema_version": version}))


@pytest.mark.parametrize("path", [None, 3, True, "", ["a.json"]])
def test_a_flow_file_must_be_given_by_its_path(path):
    with pytest.raises(FlowFileError, match="path"):
        load_flow(path)
