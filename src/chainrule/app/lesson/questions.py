"""The lesson's questions and answers, in the lesson's notation."""

QUESTIONS: tuple[tuple[str, str], ...] = (
    (
        "What causes vanishing gradients?",
        "A product of factors below one, one per layer: the slope of the activation times the size "
        "of the weights. With sigmoid and Xavier a layer passes on {vanishing.step|%}, and "
        "[{vanishing.depth} layers](show:vanishing) leave {vanishing.delta_ratio} of the "
        "gradient.",
    ),
    (
        "What causes exploding gradients?",
        "The same product with factors above one. Weights that are too large for the width do it: "
        "with σ of {exploding.weight_std} and {exploding.width} units, [each layer multiplies by "
        "{exploding.step}](show:exploding).",
    ),
    (
        "How does Xavier initialization help?",
        "It chooses the variance so that a layer keeps the spread of values and of gradients, as "
        "long as the activation is close to a line of slope one. [Tanh](show:tanh_xavier_100) is, "
        "near zero: {tanh_xavier_100.step|times} per layer. [Sigmoid](show:sigmoid_xavier_10) is "
        "not: {sigmoid_xavier_10.step|times}.",
    ),
    (
        "Why does He initialization suit ReLU?",
        "ReLU sets half of a centred signal to zero and so halves its mean square. He "
        "initialization doubles the variance to make up for it. At {relu_with_he.depth} layers "
        "the first layer's gradient is [{relu_with_he.first} with He](show:relu_with_he) and "
        "[{relu_with_xavier.first} with Xavier](show:relu_with_xavier).",
    ),
    (
        "Which activation should I use?",
        "Start with [ReLU and He](show:healthy); it is cheap and known. In narrow networks take "
        "Leaky ReLU, so that units cannot die. In transformers GELU is usual, together with "
        "normalization and residual paths. Keep sigmoid for gates and for the output.",
    ),
    (
        "How many layers before it matters?",
        "It depends on the factor per layer. Sigmoid with PyTorch's default is vanishing at "
        "[{sigmoid_pytorch_5.depth} layers](show:sigmoid_pytorch_5) "
        "({sigmoid_pytorch_5.first} at the first); tanh with Xavier keeps its "
        "gradients at [{tanh_xavier_100.depth}](show:tanh_xavier_100) ({tanh_xavier_100.first}).",
    ),
    (
        "Is PyTorch's default initialization good?",
        "For a few layers. `nn.Linear` draws weights with a third of LeCun's variance, so each "
        "layer loses a little more: [{tanh_default.depth} layers of tanh](show:tanh_default) leave "
        "{tanh_default.first} at the first, {tanh_default.step|times} per layer. In a deeper "
        "network, choose one yourself from [the table](#lesson-initializations).",
    ),
    (
        "Does Adam make all this irrelevant?",
        "Not all. Adam rescales each gradient, so moderate vanishing does not stop it: [tanh with "
        "PyTorch's default](show:tanh_pytorch_10) learns with Adam ({tanh_pytorch_10.adam|%} "
        "right) and hardly with SGD ({tanh_pytorch_10.sgd|%}). It cannot restore what never "
        "arrived: [ten sigmoid layers](show:sigmoid_xavier_10) stay at {sigmoid_xavier_10.adam|%}.",
    ),
    (
        "My gradients are fine. Why does it still not learn?",
        "A usable gradient is needed, not sufficient. [{relu_he_50.depth} layers of ReLU with "
        "He](show:relu_he_50) have {relu_he_50.first} at the first layer and yet get only "
        "{relu_he_50.sgd|%} right after {training.steps} steps of SGD. Look at the learning rate, "
        "at the data, and at whether different inputs still give different outputs.",
    ),
    (
        "What does NaN or ∞ mean on a chart?",
        "Numbers left what the computer can hold. Go to the first layer that shows it: its values "
        "or gradients grew too large. Lower the initial scale before anything else.",
    ),
    (
        "Is a gradient of zero the same as no gradient?",
        "No. A zero was computed: something on the way is flat or off. No gradient means that the "
        "loss does not depend on the parameter: look for `detach()`, an unused branch, or a "
        "frozen parameter.",
    ),
    (
        "Can I measure my own model and data?",
        "Yes. In Python, `chainrule.inspect(model, compute_loss)` measures any `nn.Module` and "
        "leaves no trace; in a terminal, `chainrule inspect file.py:function`. Your loss may use "
        "your batch, several inputs, anything that ends in one number.",
    ),
    (
        "Can I compare initializations over depth?",
        "Pin a network in the explorer and move the depth: both stay on the chart. For a table "
        "of your own, call `chainrule.simulate(spec)` in a loop.",
    ),
    (
        "I train in mixed precision. Which gradients do I see?",
        "Those of the loss you hand over. Give `inspect` the loss before a gradient scaler "
        "multiplies it, and the gradients are the true ones. Norms of half-precision tensors are "
        "taken in single precision, so that they do not overflow.",
    ),
    (
        "How do I find dead units?",
        "Look at the column “dead” in the table of numbers: units that are off for the whole "
        "batch. Above {rule.dead|%} in a layer, the diagnosis says so. Try a wider network first, "
        "then Leaky ReLU: see [what we measured](#lesson-claim-leaky).",
    ),
    (
        "Should I clip gradients?",
        "Against rare spikes, yes. Against a network that explodes by design, no: clipping "
        "multiplies all layers by the same number, here [{exploding_clipped.clip_factor}]"
        "(show:exploding_clipped), and what was out of proportion stays so.",
    ),
)
"""Questions and answers, in display order."""
