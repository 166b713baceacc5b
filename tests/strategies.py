"""What Hypothesis draws tests from."""

from hypothesis import strategies as st

from chainrule.spec.activations import ACTIVATIONS
from chainrule.spec.initializers import INITIALIZERS
from chainrule.spec.network_spec import NetworkSpec


@st.composite
def legal_fields(draw):
    """Every combination of fields that makes a legal specification."""
    init = draw(st.sampled_from(tuple(INITIALIZERS)))
    normalization = draw(st.sampled_from(("none", "layernorm", "batchnorm", "rmsnorm")))
    deviations = st.floats(0.0, 1e6)
    return {
        "depth": draw(st.integers(1, 1000)),
        "width": draw(st.integers(1, 4096)),
        "activation": draw(st.sampled_from(tuple(ACTIVATIONS))),
        "init": init,
        "distribution": draw(st.sampled_from((None, *INITIALIZERS[init].distributions))),
        "weight_std": draw(deviations) if init == "random" else 1.0,
        "bias_std": draw(st.none() | deviations),
        "residual": draw(st.sampled_from(("none", "plain", "scaled"))),
        "normalization": normalization,
        "clip_norm": draw(st.none() | st.floats(0.0, 1e30, exclude_min=True)),
        "batch_size": draw(st.integers(2 if normalization == "batchnorm" else 1, 4096)),
        "input_scale": draw(st.floats(1e-6, 1e6)),
        "seed": draw(st.integers(0, 2**31 - 1)),
        "dtype": draw(st.sampled_from(("float32", "float64"))),
    }


legal_specs = legal_fields().map(lambda fields: NetworkSpec(**fields))
