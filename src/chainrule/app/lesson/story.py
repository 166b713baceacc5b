"""The lesson's running text, in its notation."""

INTRODUCTION = (
    "One idea, one picture and one control at a time. The picture is a real network, measured "
    "while you read; *show me* puts the network that the text speaks of into it."
)

PROBLEM = (
    "A network learns by trial and error. It makes a prediction, the *loss* says how wrong it was, "
    "and then every weight moves a little in the direction that makes the loss smaller. How much a "
    "weight should move, and which way, is its *gradient*.",
    "The loss is known only at the output. The gradient of an early layer has to travel back "
    "through all the layers after it, and each of them changes its size. In a deep network it can "
    "shrink to almost nothing on the way: it *vanishes*, and early layers stop learning. Or it "
    "grows beyond measure: it *explodes*, and the first step destroys the weights.",
)

BACKPROP = (
    "**Forward:** the input $x$ goes through the layers from left to right. Each layer multiplies "
    "by its weights and applies its activation function. At the right end stands the loss.",
    "**Backward:** the gradient starts at the loss and goes through the same layers from right to "
    "left. This is *backpropagation*: the chain rule, one layer at a time. Each layer receives the "
    "gradient of the layer after it, multiplies it by its own *factor*, uses it to compute the "
    "gradient of its weights, and passes it on.",
    "In the picture, every column is a layer. The stronger its colour, the more of the gradient is "
    "left there; the small number under it is its factor. With [{sigmoid_xavier_5.depth} layers of "
    "sigmoid](show:sigmoid_xavier_5) a layer passes on about {sigmoid_xavier_5.step|%}. With "
    "[{vanishing.depth} layers](show:vanishing) the same factor is applied {vanishing.depth} times "
    "in a row.",
)

TOOL = (
    "The explorer builds the network that you describe, in PyTorch: its depth, its width, its "
    "activation function and the way its first weights are drawn. It runs a batch of random inputs "
    "through it, asks autograd for the gradient of every layer, and draws what came. It repeats "
    "this for {lesson.seeds} networks, because one network alone can be lucky.",
    "Nothing is simulated by a formula. The numbers are those that `loss.backward()` would give "
    "you in a training loop, and the script for them is [further down](#lesson-pytorch).",
    "From the numbers it tells you what is wrong, why, and what to change; each change is measured "
    "on the same network before it is suggested. Then it can train the network, so that you see "
    "whether the advice was good.",
)

GAME = (
    "A message goes down a row of {game.layers} people, and each passes on only half as loud as "
    "they heard it. Half of half of half …: {game.left|%} is left, a whisper that nobody "
    "understands. If each speaks twice as loud instead, the last one hears a shout "
    "{game.grown} times as loud as the first: deafening, and just as useless.",
    "A deep network is such a row, from the last layer to the first. Each layer passes the "
    "gradient to the layer before it, multiplied by a factor. Factors below one make it fade, "
    "factors above one make it grow, and depth decides how far.",
)

GAME_AFTER = (
    "At {game.left|%}, early layers barely learn: for each step of the last layer they take a tiny "
    "one, although everything after them builds on what they pass on. In "
    "[{vanishing.depth} sigmoid layers](show:vanishing) the factor is about {vanishing.step} "
    "per layer, in [{healthy.depth} layers of ReLU with He](show:healthy) {healthy.step}. "
    "The goal is to keep it near one."
)

STEPS = (
    (
        "Choose a scenario.",
        "[Open Vanishing (Sigmoid) in the explorer](open:vanishing): {vanishing.depth} layers, "
        "sigmoid, Xavier.",
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
        "[What to change](open:vanishing#what-to-change) lists remedies, each measured on this "
        "very network; apply the first, [scaled residual connections](show:vanishing_residual). "
        "The first layer now receives {vanishing_residual.first}, the last one "
        "{vanishing_residual.last}. Other ways lead there, too: [ReLU with "
        "He](show:vanishing_relu) gives {vanishing_relu.first} and {vanishing_relu.last}.",
    ),
    (
        "Compare combinations.",
        "Press *Pin to compare*, then change one thing: both networks stay on the chart, and a "
        "card says what the change did. For example "
        "[He instead of Xavier, the sigmoid as before](show:vanishing_he): "
        "{vanishing_he.first}. [Tanh instead of sigmoid](show:vanishing_tanh): "
        "{vanishing_tanh.first}. Which of the two matters more?",
    ),
)

STEPS_AFTER = (
    "Then [train it for real](open:vanishing#train). In our own short training, with the best of "
    "several learning rates, the vanishing network got {vanishing.sgd|%} of the examples right, "
    "which is guessing, the one with residual connections {vanishing_residual.sgd|%}, and ReLU "
    "with He {healthy.sgd|%}."
)

WHY = (
    "Layer $l$ computes $z_l = W_l h_{l-1} + b_l$ and $h_l = \\phi(z_l)$. Write $\\delta_l$ for "
    "the gradient of the loss at $z_l$. Going back, the chain rule turns the gradient at one layer "
    "into the gradient at the layer before:",
    "Do this again and again, from the last layer $L$ down to layer $l$, and every layer on the "
    "way leaves one factor. The gradient at layer $l$ is a product of all of them:",
    "Here $D_k$ holds the slopes $\\phi'(z_k)$ on its diagonal. Many courses write the same with "
    "$h$; each derivative in it is a matrix, and the one next to the loss comes first:",
    "The earlier the layer, the more factors. The weights of the first layer have the most:",
    "What matters is how much each factor stretches or shrinks, "
    "$r_k = \\|\\delta_k\\| / \\|\\delta_{k+1}\\|$. If all are about $r$, layer $l$ "
    "receives $r^{L-l}$ of what the last one does, and the first layer $r^{L-1}$. For the "
    "[vanishing network](show:vanishing) $r$ is {vanishing.step}, and $r^{L-1}$ is "
    "{vanishing.delta_ratio}.",
)

WHY_FORMULAS = (
    r"\delta_{l-1} = \phi'(z_{l-1}) \odot W_l^\top \delta_l",
    r"\delta_l = \left( \prod_{k=l}^{L-1} D_k W_{k+1}^\top \right) \delta_L",
    r"\frac{\partial \mathcal{L}}{\partial h_l} = \frac{\partial \mathcal{L}}{\partial h_L}"
    r" \prod_{k=l}^{L-1} \frac{\partial h_{k+1}}{\partial h_k}",
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
    "Solid is $\\phi$, dashed its slope $\\phi'$, which is what a gradient is multiplied by: where "
    "the slope is near zero, the gradient stops. Measured are {activation_relu.depth} layers with "
    "the initialization that suits the activation: the factor per layer, and the gradient that "
    "reaches the first."
)

INITIALIZATION_NOTE = (
    "$n_\\text{in}$ and $n_\\text{out}$ are a layer's numbers of inputs and outputs. A normal and "
    "a uniform distribution with the same variance do the same. Measured is the first layer's "
    "gradient in {tanh_with_he.depth} layers."
)

CLAIMS_NOTE = (
    "Much is repeated about gradients, and some of it is not so. Each claim was checked in several "
    "networks (medians over {lesson.seeds}). A verdict is not an opinion: *true* if the claim "
    "holds in every case, *false* if in none, else *only partly true*."
)

PYTORCH = (
    "After `loss.backward()` every parameter holds its gradient in `.grad`. Its norm, layer by "
    "layer, is what the chart shows:",
    "Below is all of it for the network in the picture: copy it, run it, and you get the numbers "
    "that it prints. It needs nothing but PyTorch.",
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
    "Paste this before your training loop. It draws the weights of every linear and convolutional "
    "layer by He initialization, made for ReLU, and sets all biases to zero:",
    "It suits ReLU and its relatives. If your model uses sigmoid between its layers, replace it "
    "first; for tanh, use `nn.init.xavier_normal_` instead.",
    "Is that enough? Here is what each change does to two classics. "
    "[What to change](open:vanishing#what-to-change) in the explorer measures such a list for any "
    "network. Work from the top: the first change that helps is often enough.",
)

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

FIX_AFTER = (
    "Clipping acts after the figures shown: here it multiplies every gradient by "
    "{exploding_clipped.clip_factor}. The step becomes small, but the layers are as unequal as "
    "before. For dead units, widen the layers: [{dying_wide.width} units](show:dying_wide) instead "
    "of [{dying.width}](show:dying) bring the first layer from {dying.first} to {dying_wide.first}."
)

PROVENANCE = (
    "Gradients: medians over {lesson.seeds} networks of {healthy.width} units unless said, "
    "{healthy.batch_size} examples, mean squared error, before any training. “Right” is the share "
    "of training examples after {training.steps} steps with batches of {training.batch} on "
    "scikit-learn's digits, the best of several learning rates; guessing gives about "
    "{lesson.chance|%}."
)
