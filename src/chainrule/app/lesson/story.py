"""The lesson's running text, in its notation; prose is in `text/story.md` and `text/steps.md`."""

from chainrule.app.text import read_paragraphs

_TEXT = read_paragraphs("story")


INTRODUCTION, SHORT = _TEXT["introduction"]

PROBLEM = _TEXT["problem"]

BACKPROP = _TEXT["backprop"]

TOOL = _TEXT["tool"]

GAME = _TEXT["game"]

GAME_AFTER = _TEXT["game after"][0]

STEPS = tuple((title, paragraphs[0]) for title, paragraphs in read_paragraphs("steps").items())

STEPS_AFTER = _TEXT["steps after"][0]

STEP = _TEXT["step"]

STEP_FORMULA = r"\frac{\partial\,\text{out}}{\partial\,\text{in}} = w \cdot \phi'(z)"

WHY = _TEXT["why"]

RESIDUAL = _TEXT["residual"]

RESIDUAL_FORMULA = r"(1 + a)\,(1 + b) = 1 + a + b + a\,b"

WHY_FORMULAS = (
    r"\frac{\partial \mathcal{L}}{\partial w_{ij}} = \delta_i \, h_j, \qquad"
    r" \frac{\partial \mathcal{L}}{\partial W_l} = \delta_l \, h_{l-1}^\top",
    r"\delta_{l-1} = \phi'(z_{l-1}) \odot W_l^\top \delta_l",
    r"\delta_l = \left( \prod_{k=l}^{L-1} D_k W_{k+1}^\top \right) \delta_L",
    r"\frac{\partial \mathcal{L}}{\partial h_l} = \frac{\partial \mathcal{L}}{\partial h_L}"
    r" \prod_{k=l}^{L-1} \frac{\partial h_{k+1}}{\partial h_k}",
    r"\frac{\partial \mathcal{L}}{\partial W_1} = \left( D_1 W_2^\top \; D_2 W_3^\top \cdots"
    r" D_{L-1} W_L^\top \, \delta_L \right) x^\top",
)

VARIANCE = _TEXT["variance"][0]

VARIANCE_LINES = (
    (
        "Forward",
        r"\operatorname{Var}(z_l) = n_\text{in}\operatorname{Var}(w)\,\operatorname{E}[h_{l-1}^2]",
        "so values keep their size if $n_\\text{in}\\operatorname{Var}(w) = 1$ and $\\phi$ is "
        "close to a line of slope one. This is LeCun initialization, the predecessor of Xavier.",
    ),
    (
        "Backward",
        r"\operatorname{E}[\delta_{l-1}^2] = n_\text{out}\operatorname{Var}(w)\,"
        r"\operatorname{E}[\phi'(z)^2]\,\operatorname{E}[\delta_l^2]",
        "so gradients do if $n_\\text{out}\\operatorname{Var}(w) = 1$. Xavier takes the middle of "
        "both: $\\operatorname{Var}(w) = 2/(n_\\text{in} + n_\\text{out})$, drawn from a normal "
        "distribution, or from a uniform one between "
        "$\\pm\\sqrt{6/(n_\\text{in} + n_\\text{out})}$, which has the same variance.",
    ),
    (
        "With ReLU",
        r"\operatorname{E}[\mathrm{ReLU}(z)^2] = \tfrac{1}{2}\operatorname{Var}(z)",
        "half is lost in both directions. He initialization doubles the variance to make up for "
        "it: $\\operatorname{Var}(w) = 2/n_\\text{in}$.",
    ),
)

VARIANCE_AFTER = _TEXT["variance after"][0]

WALK = _TEXT["walk"][0]

LOOKS = {
    "vanishing": (
        "Vanishing",
        "From {vanishing.last} at the last layer to {vanishing.first} at the first: "
        "{vanishing.step|times} per layer. [Show me](show:vanishing).",
    ),
    "healthy": (
        "Healthy",
        "Between {healthy.smallest} and {healthy.largest} everywhere: {healthy.step|times} per "
        "layer. [Show me](show:healthy).",
    ),
    "exploding": (
        "Exploding",
        "At least {exploding.smallest} at every layer, though first divided by last is a harmless "
        "{exploding.ratio}. [Show me](show:exploding).",
    ),
}

LOOKS_NOTE = _TEXT["looks note"][0]

ACTIVATION_NOTE = _TEXT["activation note"][0]

INITIALIZATION_NOTE = _TEXT["initialization note"]

CLAIMS_NOTE = _TEXT["claims note"][0]

PYTORCH = _TEXT["pytorch"]

PYTORCH_SNIPPET = """loss.backward()
for name, parameter in model.named_parameters():
    if parameter.grad is not None:  # None: the loss does not depend on it
        print(name, parameter.grad.norm().item())"""

PYTORCH_OWN = _TEXT["pytorch own"][0]

PYTORCH_OWN_SNIPPET = """import chainrule

flow = chainrule.inspect(model, lambda m: loss_function(m(inputs), targets))
print(chainrule.diagnose(flow).summary)"""

FIX = _TEXT["fix"]

FIX_SNIPPET = """from torch import nn

def initialize(module):
    if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)

model.apply(initialize)"""

ACTIVATION_SNIPPET = """for module in list(model.modules()):
    for name, child in module.named_children():
        if isinstance(child, nn.Sigmoid):
            setattr(module, name, nn.ReLU())"""

FIXES = (
    (
        "Vanishing (sigmoid)",
        "Before: {vanishing.first} at the first layer. [Show me](show:vanishing).",
        (
            ("Another activation and its initialization: ReLU, He", "vanishing_relu"),
            ("Tanh instead of sigmoid, with the same Xavier", "vanishing_tanh"),
            ("Residual connections, scaled", "vanishing_residual"),
            ("Batch normalization", "vanishing_batchnorm"),
            ("Fewer layers", "vanishing_shallow"),
            ("Not enough: only the initialization, He", "vanishing_he"),
            ("Not enough: layer normalization", "vanishing_layernorm"),
        ),
    ),
    (
        "Exploding (ReLU, random weights)",
        "Before: {exploding.first} at the first layer. [Show me](show:exploding).",
        (
            ("Initialization that knows the width: He", "healthy"),
            ("Layer normalization", "exploding_layernorm"),
            ("Only a safety net: gradient clipping", "exploding_clipped"),
        ),
    ),
)

FIX_AFTER = _TEXT["fix after"][0]

PROVENANCE = _TEXT["provenance"][0]
