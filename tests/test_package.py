"""The package as a whole: its namespace, what it loads, its examples, its documents."""

import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import chainrule

ROOT = Path(__file__).parent.parent


def test_public_names():
    assert all(hasattr(chainrule, name) for name in chainrule.__all__)
    assert set(chainrule.__all__) == {
        "ACTIVATIONS",
        "ChainruleError",
        "Diagnosis",
        "GradientFlow",
        "INITIALIZERS",
        "NetworkSpec",
        "PRESETS",
        "Remedy",
        "ScalarChain",
        "ScalarGraph",
        "Trial",
        "Verdict",
        "WidthCheck",
        "apply_remedy",
        "build_network",
        "check_width",
        "diagnose",
        "find_non_finite",
        "find_remedies",
        "inspect",
        "load_flow",
        "make_loss",
        "measure_sharpness",
        "plot",
        "probe_precision",
        "simulate",
        "try_training",
        "watch",
        "write_report",
    }


PUBLIC = {
    "spec": "ACTIVATIONS Activation INITIALIZERS Initializer NetworkSpec Normalization Residual "
    "Dtype MAX_BATCH_SIZE MAX_DEPTH MAX_QUERY MAX_SEED MAX_WIDTH repair_query",
    "flow": "GradientFlow Quantity RECORD_TYPES SCHEMA_VERSION Seed flow_adapter load_flow "
    "select_path",
    "diagnosis": "Diagnosis Finding NO_PARAMETERS Note RULES Rule Verdict diagnose overlook",
    "remedies": "MAX_PAIRS Progress Remedies Remedy SEARCH_SEEDS SEARCH_STEPS WANTED apply_remedy "
    "find_remedies find_spec_remedies",
    "training": "BUDGET CHANCE_LOSS CLASSES DEFAULT_RATES FEATURES MAX_BATCH MAX_STEPS Optimizer "
    "TRAINED TrainingRecord check_installed check_optimizer check_rate count_examples "
    "estimate_cost load_digits measure_chance measure_trainability train",
    "figures": "MEASURES SCALES build_activation_figure build_blank_figure build_factor_figure "
    "build_gradient_figure build_layer_figure build_profile_figure count_hidden",
    "report": "build_report write_report",
    "theory": "CriticalPoint DepthScales Expected LayerPrediction Prediction critical_line predict",
    "chain": "DepthCurve Derivation EXPRESSIONS Edge Equation Erratum Expression Factor "
    "GraphDerivation Line MeasuredFactor MeasuredProduct Node Path PathSum Recurrence ScalarChain "
    "ScalarGraph StableWeights SumLine WideFloat count_stable_layers derive derive_expression "
    "describe_chain describe_expression describe_product draw_expression draw_graph "
    "explain_erratum find_best_biases find_best_weights find_stable_weights get_expression "
    "measure_depth measure_product measure_recurrence summarize_derivation summarize_recurrence "
    "unroll",
    "watch": "Run sharded_norms watch",
    "errors": "ChainruleError FlowFileError InspectionError LossError RemedyError SpecError "
    "TargetError",
    "testing": "assert_healthy assert_width_independent",
    "width": "ModuleScaling ParameterScaling Scaling WidthCheck WidthFinding check_width",
    "sweeps": "CellResult FactoryCell Outcome Progress SpecCell Sweep Training make_factory_grid "
    "make_grid parse_axis phase_map PhaseCell PhaseMap run",
    "presets": "PRESETS Preset get_preset",
    "app": "create_app",
}
"""Names that people import from below `chainrule`; they stay where they are."""


@pytest.mark.parametrize("place", PUBLIC)
def test_names_that_people_import_stay(place):
    module = importlib.import_module(f"chainrule.{place}")
    names = PUBLIC[place].split()
    assert [name for name in names if not hasattr(module, name)] == []
    if hasattr(module, "__all__"):
        assert set(names) <= set(module.__all__)


def test_import_is_light():
    code = (
        "import sys, chainrule; "
        "print([n for n in ('fastapi', 'plotly', 'sympy', 'pandas', 'typer', 'rich', 'uvicorn', "
        "'jinja2', 'torch._dynamo') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "module",
    ["spec", "_utils.numbers", "flow", "diagnosis", "theory", "chain", "presets"],
)
def test_reasoning_needs_no_torch(module):
    """Lower floors work without torch; the package's own `__init__` is what imports it."""
    code = (
        "import sys, types; package = types.ModuleType('chainrule'); "
        f"package.__path__ = [{str(ROOT / 'src/chainrule')!r}]; "
        "sys.modules['chainrule'] = package; "
        f"import chainrule.{module}; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_using_the_library_leaves_global_settings_alone():
    code = (
        "import torch; before = torch.get_num_threads(), torch.get_default_dtype(); "
        "import chainrule; "
        "chainrule.simulate(chainrule.NetworkSpec(depth=2, width=4), 2).layers; "
        "assert before == (torch.get_num_threads(), torch.get_default_dtype())"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.stem)
def test_examples_run(path):
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    flow = chainrule.inspect(*module.build())
    assert flow.weight_layers
    assert all(norm is not None and norm > 0 for norm in flow.weight_gradient_norms)
    sick = {"classic_sigmoid": "vanishing", "plain_network": "vanishing"}
    sick |= {"post_norm_transformer": "signal collapse"}
    expected = sick.get(path.stem, "healthy")
    assert chainrule.diagnose(flow).verdict == expected


def test_readme_listings_run(programs, tmp_path):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    listings = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert listings
    for listing in listings:
        done = programs.run(listing, cwd=tmp_path, strict=True)
        assert done.returncode == 0, done.stderr


def test_readme_shows_existing_files():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!http|#)([^)]+)\)", text):
        assert (ROOT / target).exists(), target


def test_modules_are_small():
    too_long = {
        path.name: count
        for path in (ROOT / "src/chainrule").rglob("*.py")
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > 700
    }
    assert not too_long
