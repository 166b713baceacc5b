"""The lesson's glossary: terms and what they mean, in the lesson's notation."""

GLOSSARY: tuple[tuple[str, str], ...] = (
    (
        "Vanishing gradient",
        "On its way back to the input the gradient is multiplied by factors below one until early "
        "layers receive too little to learn. [Show me](show:vanishing).",
    ),
    (
        "Exploding gradient",
        "The same product with factors above one: gradients so large that a single step destroys "
        "the weights. [Show me](show:exploding).",
    ),
    (
        "Hidden vanishing",
        "Every gradient is tiny, but the first-to-last ratio is near one and raises no alarm. "
        "[Show me](show:hidden).",
    ),
    (
        "Backpropagated gradient, $\\delta_l$",
        "$\\partial\\mathcal{L}/\\partial z_l$: how the loss changes with the values of layer $l$ "
        "before its activation. It is what travels backward.",
    ),
    (
        "Weight gradient",
        "$\\partial\\mathcal{L}/\\partial W_l$: what the optimizer uses. The charts show its norm, "
        "one number per layer.",
    ),
    (
        "Gradient ratio",
        "The weight gradient's norm at the first layer divided by that at the last. Useful beside "
        "the size, misleading without it.",
    ),
    (
        "Gain",
        "What one module multiplies the gradient's norm by on its way back. The chain rule is the "
        "product of all gains.",
    ),
    (
        "Saturation",
        "A unit sits where its activation is flat, so its slope is nearly zero and blocks the "
        "gradient. Sigmoid and tanh saturate on both sides. For ReLU no share is shown: half of "
        "its values are on the flat side by design.",
    ),
    (
        "Dead neuron (dead unit)",
        "A unit whose slope is zero for every example of the batch. It passes nothing on and "
        "receives nothing, so no step can wake it. [Show me](show:dying).",
    ),
    (
        "Fan-in, fan-out",
        "How many inputs and outputs a layer has, $n_\\text{in}$ and $n_\\text{out}$. A sum of "
        "more terms is larger, so good initial weights are smaller in wider layers.",
    ),
    (
        "Initialization",
        "The random draw that weights start from. Its variance sets the factor of every layer. "
        "[The table](#lesson-initializations).",
    ),
    (
        "Pre-activation, activation",
        "$z_l = W_l h_{l-1} + b_l$ and $h_l = \\phi(z_l)$: a layer's values before and after its "
        "activation function.",
    ),
    (
        "Residual connection",
        "A path around a layer, $h + f(h)$. Its derivative is one plus something, so the gradient "
        "always has a way through: [{rescued.first}](show:rescued) at the first of {rescued.depth} "
        "layers, and [{relu_pytorch_100.first} without](show:relu_pytorch_100).",
    ),
    (
        "Normalization",
        "Rescaling values to mean zero and variance one: over the batch (batch), over the units "
        "(layer), or without centring (RMS). [Show me](show:vanishing_batchnorm).",
    ),
    (
        "Gradient clipping",
        "Scaling all gradients down together when their joint norm exceeds a limit. It makes steps "
        "safe; it does not change how layers compare. [Show me](show:exploding_clipped).",
    ),
    (
        "Signal collapse",
        "Different inputs give nearly the same output, so that the loss cannot say what to change "
        "for which.",
    ),
    (
        "Hard to train",
        "Every gradient is of a usable size, and yet networks that measured like this one seldom "
        "learned when they were really trained: too many layers in a row each distort what the "
        "others learn, or similar inputs are sent to unrelated places.",
    ),
    (
        "No gradient",
        "Not the same as a zero: the loss does not depend on the parameter at all, so there is no "
        "path along which a gradient could come.",
    ),
    (
        "Ensemble, median, band",
        "One network is one throw of dice. Figures here are medians over {lesson.seeds} networks, "
        "and the band holds the middle of them.",
    ),
    (
        "Self-normalizing",
        "An activation and an initialization chosen so that the spread of values settles by "
        "itself. [Show me](show:selu).",
    ),
)
"""Terms and meanings, in display order."""
