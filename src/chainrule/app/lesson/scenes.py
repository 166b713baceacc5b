"""What stands beside a section of the lesson: one picture of measured networks, one control.

A scene names the networks that its control goes through. The page shows the chosen one, measured by
the server, while the section is in sight.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from chainrule._utils.html import Markup, element, render
from chainrule.app.lesson.writer import Writer
from chainrule.app.state.subjects import ADDRESSES, SUBJECTS, write_address
from chainrule.spec.activations import ACTIVATIONS
from chainrule.spec.initializers import INITIALIZERS

DEPTHS = (2, 3, 5, 8, 10, 12, 15, 20, 30, 50)
"""Numbers of layers that a slider goes through."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One position of a control.

    Attributes:
        label: What it is called.
        address: The explorer's address of the network that it shows.
    """

    label: str
    address: str


@dataclass(frozen=True, slots=True)
class Scene:
    """One picture with one control.

    Attributes:
        words: What to do and what to look at, in one or two sentences.
        label: What the control sets.
        kind: "chips" for a row of names, "slider" for numbers in order, "play" for a button that
            sends the pulse back.
        choices: The networks that it goes through.
        start: Which of them is shown first.
        seen: What is to be seen there, folded away until it was tried; "" for nothing.
    """

    words: str
    label: str
    kind: Literal["chips", "slider", "play"]
    choices: tuple[Choice, ...]
    start: int = 0
    seen: str = ""


def _name(*pairs: tuple[str, str]) -> tuple[Choice, ...]:
    return tuple(Choice(label, ADDRESSES[subject]) for label, subject in pairs)


def _deepen(subject: str) -> tuple[Choice, ...]:
    spec = SUBJECTS[subject]
    return tuple(Choice(str(depth), write_address(spec.replace(depth=depth))) for depth in DEPTHS)


SCENES: Mapping[str, Scene] = MappingProxyType(
    {
        "problem": Scene(
            "Guess first: what happens to the first layer when the network gets deeper? Then drag.",
            "Layers of sigmoid",
            "slider",
            _deepen("vanishing"),
            0,
            "The first layers slide out of the green band. {sigmoid_xavier_5.depth} layers still "
            "leave {sigmoid_xavier_5.first} at layer one, [{vanishing.depth} layers]"
            "(show:vanishing) leave {vanishing.first}. The last layer, next to the loss, always "
            "receives about the same.",
        ),
        "backprop": Scene(
            "Send one gradient back from the loss, and watch how bright it is at each layer.",
            "The backward pass",
            "play",
            _name(("5 sigmoid layers", "sigmoid_xavier_5")),
        ),
        "tool": Scene(
            "One change, before and after.",
            "The same network",
            "chips",
            _name(("as it was", "vanishing"), ("with residual connections", "vanishing_residual")),
        ),
        "step": Scene(
            "The same layers with three curves. Guess first: which slope is largest near zero?",
            "Slope at zero",
            "chips",
            _name(
                ("Sigmoid: a quarter", "vanishing"),
                ("Tanh: one", "vanishing_tanh"),
                ("ReLU: zero or one", "relu_with_xavier"),
            ),
            0,
            "With the same Xavier weights and {vanishing.depth} layers, a layer passes on "
            "{vanishing.step} of $\\delta$ (its weights and its slope together) with sigmoid, "
            "{vanishing_tanh.step} with tanh and {relu_with_xavier.step} with ReLU: the slope is "
            "one of the two factors.",
        ),
        "why": Scene(
            "Every layer adds one factor to the product. On this axis, whose steps are powers of "
            "ten, equal factors give a straight line.",
            "Layers of sigmoid",
            "slider",
            _deepen("vanishing"),
            DEPTHS.index(15),
        ),
        "residual": Scene(
            "Guess first: does the gradient reach the first of {rescued.depth} layers? Then add "
            "the paths around.",
            "100 layers of ReLU, PyTorch's default weights",
            "chips",
            _name(("No paths around", "relu_pytorch_100"), ("Residual connections", "rescued")),
            0,
            "Without them {relu_pytorch_100.first} reaches the first layer, with them "
            "{rescued.first}: depth, weights and activation are the same. At its left end the line "
            "turns flat: the values that come forward are larger there, near the input, and a "
            "weight gradient is $\\delta$ times these values.",
        ),
        "looks": Scene(
            "Are the points at about the same height? And are they in the green band?",
            "Network",
            "chips",
            _name(
                ("Vanishing", "vanishing"),
                ("Healthy", "healthy"),
                ("Exploding", "exploding"),
                ("Hidden vanishing", "hidden"),
            ),
            0,
            "Only one of the four is healthy. In two of the others the points are at about the "
            "same height, too, but outside the band: look at both, the slope and the height.",
        ),
        "activations": Scene(
            "The same {activation_relu.depth} layers with each activation, and the initialization "
            "that suits it.",
            "Activation",
            "chips",
            _name(*((entry.label, f"activation_{name}") for name, entry in ACTIVATIONS.items())),
        ),
        "initializations": Scene(
            "The same {relu_with_he.depth} layers of ReLU with each initialization.",
            "Initialization",
            "chips",
            _name(*((entry.label, f"relu_with_{name}") for name, entry in INITIALIZERS.items())),
            list(INITIALIZERS).index("he"),
        ),
        "claims": Scene(
            "All four have a first-to-last ratio near one. Only one of them is healthy.",
            "A harmless ratio",
            "chips",
            _name(
                ("ReLU + He", "healthy"),
                ("ReLU + Xavier", "hidden"),
                ("ReLU, spread 1", "exploding"),
                ("SiLU + He", "silu_he_30"),
            ),
            1,
        ),
        "fix": Scene(
            "Which changes bring the first layer back into the green band? Guess before you "
            "choose.",
            "The vanishing network, changed",
            "chips",
            _name(
                ("Unchanged", "vanishing"),
                ("Only He", "vanishing_he"),
                ("Tanh", "vanishing_tanh"),
                ("ReLU + He", "vanishing_relu"),
                ("Residual", "vanishing_residual"),
                ("Batch norm", "vanishing_batchnorm"),
                ("Layer norm", "vanishing_layernorm"),
                ("3 layers", "vanishing_shallow"),
            ),
            0,
            "Most of them, and two do not: with only [He initialization](show:vanishing_he) the "
            "slope of the sigmoid stays as small as it was, and so it does with [layer "
            "normalization](show:vanishing_layernorm).",
        ),
    }
)
"""The scene of each section that has one; beside the others the last one stays."""


def write_scene(writer: Writer, name: str, scene: Scene) -> Markup:
    """Return a scene's control; `lesson/learn.js` shows the network that it is set to."""
    if scene.kind == "play":
        control = element(
            "button",
            "▶ Play the backward pass",
            type="button",
            class_="primary",
            data_play="1",
            data_network=scene.choices[0].address,
        )
    elif scene.kind == "slider":
        control = _write_slider(name, scene)
    else:
        control = _write_chips(name, scene)
    return element(
        "div",
        element("p", writer.text(scene.words), class_="ls-try-words"),
        control,
        element(
            "details",
            element("summary", "What is to be seen"),
            writer.paragraph(scene.seen),
        )
        if scene.seen
        else None,
        class_="ls-try",
        data_scene=name,
        data_start=scene.choices[scene.start].address,
    )


def _write_slider(name: str, scene: Scene) -> Markup:
    first, last = scene.choices[0].label, scene.choices[-1].label
    return element(
        "div",
        element(
            "label",
            element(
                "span",
                scene.label,
                " ",
                element("output", scene.choices[scene.start].label, for_=f"scene-{name}"),
            ),
            element(
                "input",
                type="range",
                id=f"scene-{name}",
                aria_label=scene.label,
                min="0",
                max=str(len(scene.choices) - 1),
                step="1",
                value=str(scene.start),
                aria_valuetext=f"{scene.choices[scene.start].label} layers",
                data_labels=" ".join(choice.label for choice in scene.choices),
                data_networks=" ".join(choice.address for choice in scene.choices),
            ),
            class_="ls-slider",
        ),
        element(
            "div",
            element("span", first),
            element("span", last),
            class_="ls-ends",
            aria_hidden="true",
        ),
    )


def _write_chips(name: str, scene: Scene) -> Markup:
    chips = [
        element(
            "label",
            element(
                "input",
                type="radio",
                name=f"scene-{name}",
                value=choice.address,
                checked="checked" if at == scene.start else None,
            ),
            element("span", choice.label),
        )
        for at, choice in enumerate(scene.choices)
    ]
    return element(
        "fieldset",
        element("legend", scene.label),
        render(*chips),
        class_="ls-chips",
    )
