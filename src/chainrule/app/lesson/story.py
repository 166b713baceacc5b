"""The lesson's running text, in its notation."""

INTRODUCTION = (
    "A network learns from a message that travels backward, from its error to its first layer. "
    "In a deep network that message can fade to nothing or swell beyond measure on the way. Here "
    "is why, how to see it, and what to do. Every number below was measured with the engine behind "
    "this page, and *show me* sets the page above to the network it speaks of."
)

GAME = (
    "A message goes down a row of {game.layers} people, and each passes on only half of what "
    "arrived. Half of half of half …: {game.left|%} of it is left.",
    "A deep network is such a row. Its error is known at the output; each layer passes it to the "
    "layer before, multiplied by a factor of its own. Factors below one make it fade, factors "
    "above one make it swell, and depth decides how far. Try it:",
)

GAME_AFTER = (
    "In [{vanishing.depth} sigmoid layers](show:vanishing) the factor is about {vanishing.step} "
    "per layer, in [{healthy.depth} layers of ReLU with He](show:healthy) {healthy.step}. "
    "The whole art is to keep it near one."
)

STEPS = (
    (
        "Choose a scenario.",
        "Set the page to [Vanishing (Sigmoid)](show:vanishing): {vanishing.depth} layers, sigmoid, "
        "Xavier.",
    ),
    (
        "Read the cards and the gradient chart.",
        "The last layer receives a gradient of {vanishing.last}, the first one {vanishing.first}. "
        "On the chart, whose scale is in powers of ten, the line falls straight towards the input: "
        "each layer takes about the same share. A layer that receives so little does not learn.",
    ),
    (
        "Find the factor to blame.",
        "In “The product, factor by factor”, every layer has two factors: the slope of its "
        "activation, and its weights. The slopes are the small ones: a sigmoid's is never above "
        "{sigmoid.most}. Together a layer passes on {vanishing.step|%}.",
    ),
    (
        "Change it, and measure again.",
        "[What to change](#what-to-change) lists remedies, each measured on this very network; "
        "apply the first, [scaled residual connections](show:vanishing_residual). The first layer "
        "now receives {vanishing_residual.first}, the last one {vanishing_residual.last}. Other "
        "ways lead there, too: [ReLU with He](show:vanishing_relu) gives "
        "{vanishing_relu.first} and {vanishing_relu.last}.",
    ),
)

STEPS_AFTER = (
    "Then [train it for real](#train). In our own short training, with the best of several "
    "learning rates, the vanishing network got {vanishing.sgd|%} of the examples right, which is "
    "guessing, the one with residual connections {vanishing_residual.sgd|%}, and ReLU with He "
    "{healthy.sgd|%}."
)

WHY = (
    "Layer $l$ computes $z_l = W_l h_{l-1} + b_l$ and $h_l = \\phi(z_l)$. Going back, the chain "
    "rule turns the gradient at one layer into the gradient at the layer before:",
    "So the first layer's gradient is a product with one factor for every layer above it:",
    "where $D_l$ holds the slopes $\\phi'(z_l)$. What matters is how much each factor stretches or "
    "shrinks, $r_l = \\|\\delta_{l-1}\\| / \\|\\delta_l\\|$. If all are about $r$, the first layer "
    "receives $r^{L-1}$ of what the last one does. For the [vanishing network](show:vanishing) "
    "$r$ is {vanishing.step}, and $r^{L-1}$ is {vanishing.delta_ratio}.",
)

WHY_FORMULAS = (
    r"\delta_{l-1} = \phi'(z_{l-1}) \odot W_l^\top \delta_l",
    r"\frac{\partial \mathcal{L}}{\partial W_1} = \left( D_1 W_2^\top \; D_2 W_3^\top \cdots"
    r" D_{L-1} W_L^\top \, \delta_L \right) x^\top",
)

VARIANCE = (
    "Which weights keep the factor near one? Three lines, for weights drawn independently with "
    "mean zero:"
)

VARIANCE_LINES = (
    (
        "Forward",
        r"\operatorname{Var}(z_l) = n_\text{in}\operatorname{Var}(w)\,\operatorname{E}[h_{l-1}^2]",
        "so values keep their size if $n_\\text{in}\\operatorname{Var}(w) = 1$ and $\\phi$ is "
        "close to a line of slope one.",
    ),
    (
        "Backward",
        r"\operatorname{E}[\delta_{l-1}^2] = n_\text{out}\operatorname{Var}(w)\,"
        r"\operatorname{E}[\phi'(z)^2]\,\operatorname{E}[\delta_l^2]",
        "so gradients do if $n_\\text{out}\\operatorname{Var}(w) = 1$. Xavier takes the middle of "
        "both: $\\operatorname{Var}(w) = 2/(n_\\text{in} + n_\\text{out})$.",
    ),
    (
        "With ReLU",
        r"\operatorname{E}[\mathrm{ReLU}(z)^2] = \tfrac{1}{2}\operatorname{Var}(z)",
        "half is lost in both directions. He doubles the variance to make up for it: "
        "$\\operatorname{Var}(w) = 2/n_\\text{in}$.",
    ),
)

VARIANCE_AFTER = (
    "None of the usual three makes up for sigmoid, whose slopes are at most {sigmoid.most}: with "
    "PyTorch's default a layer passes on [{sigmoid_pytorch_10.step}](show:sigmoid_pytorch_10), "
    "with Xavier [{vanishing.step}](show:vanishing), with He "
    "[{vanishing_he.step}](show:vanishing_he). Weights that are much larger do: random ones with "
    "σ = {survivor.weight_std}, [{survivor.step}](show:survivor)."
)

WALK = (
    "[See it as graph and equation, one layer at a time](/chain-rule?walk=1): the same product, "
    "with every factor to touch and change."
)

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

LOOKS_NOTE = (
    "Gradient norm of each layer, all on one axis. Shaded is the range in which the diagnosis "
    "calls a gradient usable: from {rule.vanishing} to {rule.exploding} times the error at the "
    "output, which is how large a change the loss asks of one output. So no verdict depends on the "
    "scale of the loss."
)

ACTIVATION_NOTE = (
    "Solid is $\\phi$, dashed its slope $\\phi'$, which is what a gradient is multiplied by. The "
    "last column is measured: {activation_relu.depth} layers with the initialization that suits "
    "the activation, the factor per layer and the gradient that reaches the first."
)

INITIALIZATION_NOTE = (
    "$n_\\text{in}$ and $n_\\text{out}$ are a layer's numbers of inputs and outputs. The last two "
    "columns are measured: the first layer's gradient in {tanh_with_he.depth} layers."
)

CLAIMS_NOTE = (
    "Much is repeated about gradients, and some of it is not so. Each claim was checked in several "
    "networks (medians over {lesson.seeds}). A verdict is not an opinion: *true* if the claim "
    "holds in every case, *false* if in none, else *only partly true*."
)

PYTORCH = (
    "After `loss.backward()` every parameter holds its gradient in `.grad`. Its norm, layer by "
    "layer, is what the chart on this page shows:",
    "Below is all of it for the configuration on screen: copy it, run it, and you get the numbers "
    "beside it. It needs nothing but PyTorch.",
)

PYTORCH_SNIPPET = """loss.backward()
for name, parameter in model.named_parameters():
    if parameter.grad is not None:  # None: the loss does not depend on it
        print(name, parameter.grad.norm().item())"""

PYTORCH_OWN = (
    "For a model of your own, chainrule measures every module as well: values, saturation, dead "
    "units, and the factor of each, and leaves no trace in the model:"
)

PYTORCH_OWN_SNIPPET = """import chainrule

flow = chainrule.inspect(model, lambda m: loss_function(m(inputs), targets))
print(chainrule.diagnose(flow).summary)"""

FIX = (
    "Work from the top: the first change that helps is often enough. "
    "[What to change](#what-to-change) measures such a list for the configuration on screen; "
    "this one is for two classics.",
)

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

FIX_AFTER = (
    "Clipping acts after the figures shown: here it multiplies every gradient by "
    "{exploding_clipped.clip_factor}. The step becomes short, the network stays ill. For "
    "dead units, widen the layers: [{dying_wide.width} units](show:dying_wide) instead of "
    "[{dying.width}](show:dying) bring the first layer from {dying.first} to {dying_wide.first}."
)

PROVENANCE = (
    "Gradients: medians over {lesson.seeds} networks of {healthy.width} units unless said, "
    "{healthy.batch_size} examples, mean squared error, before any training. “Right” is the share "
    "of training examples after {training.steps} steps with batches of {training.batch} on "
    "scikit-learn's digits, the best of several learning rates; guessing gives about "
    "{lesson.chance|%}."
)
