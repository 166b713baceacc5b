"""`find_non_finite`: which operation makes the first infinite or undefined number.

All operations of one forward and backward pass are watched below autograd (a dispatch mode sees
each of them on every device, those of autograd's own formulas included). An output that is not
finite gets an origin: its own operation if all that went in was finite (a producer), else that of
what went in (a propagator). Origins follow the memory that a tensor lies in, so at the end the loss
and every gradient tell where theirs came from. Of the tensors nothing is kept but that.

Minus infinity that the code writes itself, as an attention mask does, is no fault. It becomes one
where an operation makes NaN of it: the softmax of a row that is masked everywhere, 0 × ∞, ∞ − ∞.
"""

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from inspect import currentframe
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node
from torch.utils._python_dispatch import TorchDispatchMode

from chainrule._utils.user_code import is_of_user, read_line
from chainrule.errors import InspectionError
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.non_finite import (
    SHOWN,
    NonFiniteElement,
    NonFiniteOrigin,
)
from chainrule.flow.quantity import Quantity
from chainrule.flow.records import get_file_name
from chainrule.measure._torch_internals import (
    disable_dispatch_modes,
    disable_function_modes,
    find_current_node,
    is_in_backward,
    next_sequence_number,
    read_sequence_number,
)
from chainrule.measure.autograd_graph import is_leaf, walk
from chainrule.measure.backward import explain_failure, gather_gradients
from chainrule.measure.calls import Call, FollowCalls, describe_call, name_within
from chainrule.measure.elements import (
    Number,
    describe_elements,
    find_memory,
    has_infinity,
    has_nan,
    is_finite,
    mark_elements,
    name_number,
    read_plain,
)
from chainrule.measure.inspection import call_loss, check_arguments, take_checked_inventory
from chainrule.measure.interrupts import HoldInterrupts
from chainrule.measure.modules import Inventory
from chainrule.measure.operations import (
    CONSTANTS,
    INVERTS,
    MAKES_GARBAGE,
    MASKED_ROW,
    MIXES,
    OVERWRITES,
    ROW_WISE,
    WITH_NUMBERS,
    Input,
    Operation,
    find_new,
    get_operation_name,
    is_overflow,
    is_view,
    list_saved,
    list_written,
    name_node,
    name_operation,
)
from chainrule.measure.preservation import restore
from chainrule.measure.recording import Subject, describe_module
from chainrule.measure.results import find_tensors
from chainrule.measure.sharing import finish_all, run_modules_one_by_one

MOST_RECORDS = 1_000_000
"""Most operations whose place is remembered, for the way back; a graph of so many is larger."""

Source = Literal["operation", "constant", "input", "parameter", "buffer"]


def find_non_finite(
    model: nn.Module, compute_loss: Callable[[Any], Tensor]
) -> NonFiniteOrigin | None:
    """Return what makes the first infinite or undefined number, and where; `None` if nothing does.

    It watches every operation of one forward and backward pass, on any device, and takes about as
    long as `inspect`. It leaves no trace, as `inspect` does. What it names makes such a
    number of finite ones; what only passes it on is not named. If several do, the one is named
    whose number reaches the loss, or else the first parameter on the way back.

    Minus infinity in an attention mask is no fault, unless a row is masked everywhere. A number
    that reaches neither the loss nor the gradient of a parameter is found as well
    (`NonFiniteOrigin.is_harmless`), if no other does harm.

    Args:
        model: Any PyTorch module, as for `inspect`.
        compute_loss: As for `inspect`; called once.

    Raises:
        LossError: As `inspect` does.
        InspectionError: As `inspect` does.

    Example:
        >>> model, x = nn.Linear(2, 1), torch.ones(1, 2)
        >>> find_non_finite(model, lambda m: (0 * m(x)).sqrt().sum()).op
        'square root'
    """
    check_arguments(model, compute_loss)
    inventory = take_checked_inventory(model)
    with (
        HoldInterrupts() as interrupts,
        restore(inventory),
        torch.inference_mode(False),
        torch.enable_grad(),
        run_modules_one_by_one(),
    ):
        watch = _Watch(inventory)
        with watch.follow_modules():
            with interrupts.let_through():
                with watch, watch.calls:
                    loss, _ = call_loss(
                        compute_loss, inventory.modules[0][1], lambda: watch.last_run
                    )
                graph = walk(loss)
                watch.keep_gradients(graph.nodes)
            trained = [each.tensor for each in inventory.parameters if each.tensor.requires_grad]
            with gather_gradients((*trained, *graph.leaves)):
                with interrupts.let_through(), explain_failure(), watch:
                    loss.sum().backward()
                return watch.conclude(loss)


def add_origin(
    flow: GradientFlow, model: nn.Module, compute_loss: Callable[[Any], Tensor]
) -> GradientFlow:
    """Return a flow with the origin of its infinite or undefined numbers; itself if it has none.

    Args:
        flow: The measurement of `model` by `inspect`.
        model: The model.
        compute_loss: As for `inspect`; called once more if any number is not finite.

    Example:
        >>> from chainrule.measure.inspection import inspect
        >>> model, x = nn.Linear(2, 1), torch.ones(1, 2)
        >>> def compute_loss(m):
        ...     return (0 * m(x)).sqrt().sum()
        >>> add_origin(inspect(model, compute_loss), model, compute_loss).origin.direction
        'backward'
    """
    if flow.is_finite:
        return flow
    try:
        origin = find_non_finite(model, compute_loss)
    except InspectionError:  # it was measured once, but cannot be computed a second time
        return flow
    return replace(flow, origin=origin)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an operation was called."""

    file: str
    line: int | None
    module: str | None
    caller: str = ""


@dataclass(slots=True, eq=False)
class _Origin:
    """Where numbers that are not finite begin, while more is being learned about them.

    Attributes:
        is_mask: Whether it is infinity that the code or the data holds, as a mask does.
        leaves: Whether its numbers leave the node of the graph in which they were made.
        is_inner: Whether a function of PyTorch writes it, and may not use it (`torch.logdet`).
        after: What became infinite, and zero again, before it; what follows may come of that.
        zeroed_by: What makes zeros of it, in a clause; "" if nothing does.
    """

    source: Source
    op: str
    function: str
    direction: Literal["forward", "backward"]
    place: _Place
    number: Number
    dtype: str
    overflow: bool = False
    is_mask: bool = False
    leaves: bool = True
    is_inner: bool = False
    after: "_Origin | None" = None
    zeroed_by: str = ""
    shape: tuple[int, ...] = ()
    count: int = 1
    elements: tuple[NonFiniteElement, ...] = ()
    detail: str = ""

    def note(
        self,
        output: Tensor,
        values: Sequence[Tensor | float],
        *,
        bad: Tensor | None = None,
        incoming: Sequence[Tensor] = (),
        results: Sequence[Tensor | float] = (),
        mixes: bool = False,
    ) -> None:
        """Write down which elements of a tensor are meant (see `describe_elements`)."""
        self.shape = tuple(output.shape)
        self.count = max(1, int(mark_elements(output, bad).sum()))
        self.elements = describe_elements(
            output, values, bad=bad, incoming=incoming, results=results, mixes=mixes
        )


class _Watch(TorchDispatchMode):
    """Sees every operation while it is on, and writes down where numbers stop being finite.

    Attributes:
        last_run: The last module that returned, for messages.
        calls: Knows which function of PyTorch runs.
    """

    supports_higher_order_operators = True

    def __init__(self, inventory: Inventory) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.last_run: Subject | None = None
        self.calls = FollowCalls()
        self._inventory = inventory
        self._names = {id(module): name for name, module in inventory.modules}
        self._modules: list[str] = []
        self._origins: list[_Origin] = []
        self._of_memory: dict[int, _Origin] = {}
        self._zeroed: dict[int, _Origin] = {}
        self._records: dict[tuple[int, int], tuple[str, _Place]] = {}
        self._thread = threading.get_ident()
        self._places: dict[tuple[str, int | None, str | None, str], _Place] = {}
        self._handles: list[Any] = []
        self._held: dict[int, tuple[Literal["parameter", "buffer"], str]] = {}
        for name, module in inventory.modules:
            for key, buffer in module._buffers.items():
                if buffer is not None and (memory := find_memory(buffer)) is not None:
                    self._held[memory] = "buffer", f"{name}.{key}" if name else key
        for parameter in inventory.parameters:
            if (memory := find_memory(parameter.tensor)) is not None:
                self._held[memory] = "parameter", parameter.names[0]

    # --- Where things happen ----------------------------------------------------------------------

    @contextmanager
    def follow_modules(self) -> Iterator[None]:
        """Know which module runs, by hooks that are taken off again."""
        handles: list[Any] = []

        def enter(module: nn.Module, args: Any) -> None:
            self._modules.append(self._names.get(id(module), ""))

        def leave(module: nn.Module, args: Any, result: Any) -> None:
            if self._modules:
                self.last_run = describe_module(self._modules.pop(), module)

        try:
            for _, module in self._inventory.modules:
                handles.append(module.register_forward_pre_hook(enter, prepend=True))
                handles.append(module.register_forward_hook(leave, always_call=True))
            yield
        finally:
            self._modules.clear()
            finish_all(handle.remove for handle in (*handles, *self._handles))

    def _find_place(self) -> tuple[_Place, bool]:
        """Return the innermost line of code that is neither PyTorch's nor chainrule's.

        And whether it runs inside of a backward pass, so that it is not the line that starts it.
        """
        frame = currentframe()
        file, line, module = "", None, self._modules[-1] if self._modules else None
        caller = ""
        is_inside = is_in_backward()
        while frame is not None:
            code = frame.f_code
            if code is find_non_finite.__code__:
                break
            if code.co_name == _ENGINE:
                is_inside = False
            elif is_of_user(code.co_filename):
                file, line = code.co_filename, frame.f_lineno
                if module is None:  # a method of the model that was called directly
                    module = self._names.get(id(frame.f_locals.get("self")))
                break
            elif _DISTRIBUTIONS in code.co_filename.replace("\\", "/"):
                kind = type(frame.f_locals["self"]).__name__ if "self" in frame.f_locals else ""
                made = code.co_name == "__init__"
                caller = ".".join(filter(None, (kind, "" if made else code.co_name)))
            frame = frame.f_back
        key = file, line, module, caller
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = _Place(file, line, module, caller)
        return place, is_inside and line is not None

    # --- What every operation does ----------------------------------------------------------------

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operation and look at what came out."""
        kwargs = kwargs or {}
        schema = getattr(func, "_schema", None)
        name = get_operation_name(func)
        written = list_written(schema, args, kwargs) if schema is not None else []
        before: dict[int, Tensor] = {}
        if written and name not in OVERWRITES:
            for tensor in written:
                before[id(tensor)] = tensor.detach().clone()
        result = func(*args, **kwargs)
        self._record(name)
        if name not in MAKES_GARBAGE and (written or schema is None or not is_view(schema)):
            with disable_function_modes():
                self._look(Operation(func, name, args, kwargs), result, written, before)
        return result

    def _record(self, name: str) -> None:
        """Remember which operation the newest node of the graph stands for."""
        if torch.is_grad_enabled() and len(self._records) < MOST_RECORDS:
            key = threading.get_ident(), next_sequence_number() - 1
            if key not in self._records:  # what comes later has no node of its own
                self._records[key] = name, self._find_place()[0]

    def _look(
        self,
        operation: Operation,
        result: Any,
        written: Sequence[Tensor],
        before: Mapping[int, Tensor],
    ) -> None:
        """Give every output that is not finite its origin."""
        self._follow_zeros(operation, result, written)
        if operation.name in INVERTS:
            self._find_zeroed(operation, result)
        outputs = [tensor for _, tensor in find_tensors(result)]
        unique = {id(tensor): tensor for tensor in (*outputs, *written)}
        is_written = {id(tensor) for tensor in written}
        for key, output in unique.items():
            plain = read_plain(output)
            if plain is None:
                continue
            memory = find_memory(plain)
            if is_finite(plain):
                if memory is not None and key not in is_written:
                    self._of_memory.pop(memory, None)
                continue
            inputs = []
            for _, tensor in find_tensors((operation.args, dict(operation.kwargs))):
                if id(tensor) in is_written and id(tensor) not in before:
                    continue  # it was overwritten, so it is no input
                # What was written in place is looked up as what it was before.
                values = read_plain(before.get(id(tensor), tensor))
                own = read_plain(tensor)
                if values is not None and own is not None:
                    inputs.append(Input(values, find_memory(own)))
            origin = self._find_origin(operation, inputs, plain)
            if memory is not None:
                self._of_memory[memory] = origin

    def _find_origin(
        self, operation: Operation, inputs: Sequence[Input], output: Tensor
    ) -> _Origin:
        name = operation.name
        bad = [each for each in inputs if not is_finite(each.values)]
        constants = [value for value in operation.numbers if not math.isfinite(value)]
        if not bad and not constants:
            return self._add(operation, inputs, output)
        origins = [self._get_origin(operation, each) for each in bad]
        if origins and all(origin.is_inner for origin in origins):
            return self._add(operation, [], output, op=self._name_call(operation))
        nans = [has_nan(each.values) for each in bad]
        faults = [origin for origin in origins if not origin.is_mask]
        if has_nan(output) and not any(nans) and not any(map(math.isnan, constants)):
            is_masked = name in ROW_WISE and not any(has_infinity(each.values) for each in bad)
            if is_masked or not faults:
                # Infinity in data that is read as a number is the fault, not what reads it.
                held = [each for each in origins if each.source != "constant" and name in MIXES]
                op = MASKED_ROW if is_masked else ""
                return held[0] if held else self._add(operation, inputs, output, op=op)
        if faults:
            undefined = [x for x, nan in zip(origins, nans, strict=True) if nan and not x.is_mask]
            return (undefined or faults)[0]
        if not bad:
            call = self._find_call()
            is_inner = operation.name in CONSTANTS and call is not None and not call.holds_nan
            origin = self._add(operation, [], output, source="constant")
            if has_nan(output) and is_inner:  # no fault as long as nothing takes it
                origin.is_inner = origin.is_mask = True
            elif operation.name in CONSTANTS and call is not None:
                origin.op = name_operation(call.name)
            return origin
        new = find_new(operation, inputs, output)
        return origins[0] if new is None else self._add(operation, inputs, output, bad=new)

    def _get_origin(self, operation: Operation, read: Input) -> _Origin:
        """Return the origin of a tensor that is not finite; of one that was there before, too."""
        if read.memory is not None and read.memory in self._of_memory:
            return self._of_memory[read.memory]
        source: Source
        source, held = self._held.get(read.memory or 0, ("input", ""))
        origin = self._add(operation, [], read.values, source=source, op=held)
        if read.memory is not None:
            self._of_memory[read.memory] = origin
        return origin

    def _add(
        self,
        operation: Operation,
        inputs: Sequence[Input],
        output: Tensor,
        *,
        source: Source = "operation",
        op: str = "",
        bad: Tensor | None = None,
    ) -> _Origin:
        """Return a new origin, by default this operation.

        Args:
            operation: What makes or reads the numbers.
            inputs: What went in.
            output: The tensor that holds them.
            source: What kind of origin it is.
            op: What it is called; by default what the operation is called.
            bad: Where in the tensor they are; by default wherever it is not finite.
        """
        place, is_inside = self._find_place()
        # Code that runs with gradients inside a backward pass repeats a part of the forward pass.
        backward = is_in_backward() and not (is_inside and torch.is_grad_enabled())
        number = name_number(output)
        is_made = source == "operation"
        words = op or name_operation(operation.name)
        call = None if backward else self._find_call()
        within = place.caller or name_within(call, words) if is_made and not op else ""
        origin = _Origin(
            source=source,
            op=f"{words}, in {within}" if within else words,
            function=str(operation.function),
            direction="backward" if backward else "forward",
            place=place,
            number=number,
            dtype=str(output.dtype).removeprefix("torch."),
            overflow=source == "operation" and is_overflow(operation, inputs, output),
            is_mask=(source != "operation" and number == "-inf")
            or (source in ("constant", "buffer") and number == "inf"),
            detail=describe_call(operation, call, output) if is_made and bad is None else "",
            after=self._find_zeros(operation) if is_made else None,
        )
        values: list[Tensor | float] = [each.values for each in inputs]
        if operation.name in WITH_NUMBERS:
            values += operation.numbers
        origin.note(output, values, bad=bad, mixes=not operation.is_pointwise)
        self._origins.append(origin)
        node = find_current_node() if backward else None
        if node is not None and source == "operation":
            self._assign(origin, node, has_line=is_inside)
        return origin

    def _find_call(self) -> Call | None:
        """Return the function of PyTorch that runs, on the thread that called the loss."""
        return self.calls.current if threading.get_ident() == self._thread else None

    def _name_call(self, operation: Operation) -> str:
        """Return what the function is called that runs, or else the operation."""
        call = self._find_call()
        return name_operation(operation.name if call is None else call.name)

    # --- Infinity that becomes zero ---------------------------------------------------------------

    def _find_zeroed(self, operation: Operation, result: Any) -> None:
        """Find infinity of which an operation makes nothing but zeros."""
        output = read_plain(result) if isinstance(result, Tensor) else None
        if output is None or is_in_backward() or not is_finite(output):
            return
        for _, tensor in find_tensors((operation.args, dict(operation.kwargs))):
            memory, values = find_memory(tensor), read_plain(tensor)
            origin = self._of_memory.get(memory or 0)
            if origin is None or values is None or origin.source != "operation":
                continue
            count = int(((output == 0) & values.isinf().expand(output.shape)).sum())
            if origin.zeroed_by or origin.number != "inf" or 2 * count <= output.numel():
                continue
            place, _ = self._find_place()
            line = "" if place.line is None else f" ({get_file_name(place.file)}:{place.line})"
            many = f" in {count:,} of {output.numel():,} places" if output.numel() > 1 else ""
            origin.zeroed_by = f"{name_operation(operation.name)}{line} makes 0 of it{many}"
            if (found := find_memory(output)) is not None:
                self._zeroed[found] = origin

    def _find_zeros(self, operation: Operation) -> _Origin | None:
        """Return whose zeros go into an operation, directly or through others."""
        for _, tensor in find_tensors((operation.args, dict(operation.kwargs))):
            origin = self._zeroed.get(find_memory(tensor) or 0)
            if origin is not None:
                return origin
        return None

    def _follow_zeros(self, operation: Operation, result: Any, written: Sequence[Tensor]) -> None:
        """Remember what is computed from zeros that were infinite."""
        if not self._zeroed:
            return
        origin = self._find_zeros(operation)
        is_written = {id(tensor) for tensor in written}
        for _, tensor in find_tensors(result):
            memory = find_memory(tensor)
            if memory is None:
                continue
            if origin is not None:
                self._zeroed.setdefault(memory, origin)
            elif id(tensor) not in is_written:
                self._zeroed.pop(memory, None)

    # --- The way back -----------------------------------------------------------------------------

    def _assign(self, origin: _Origin, node: Any, *, has_line: bool) -> None:
        """Give an origin on the way back to the operation whose derivative is computed.

        A backward pass that is written in Python has lines of its own.
        """
        recorded = self._find_record(node)
        origin.function = str(node.name())
        if isinstance(node, BackwardCFunction):
            origin.op = f"{origin.op}, in {type(node).__name__.removesuffix('Backward')}.backward"
        elif not isinstance(node, Node) or is_leaf(node):
            return
        else:
            origin.op = name_node(origin.function)
        if recorded is not None:
            own = origin.place if has_line else recorded
            origin.place = _Place(own.file, own.line, recorded.module)
        origin.leaves = False

        def look(outgoing: Sequence[Tensor | None], incoming: Sequence[Tensor | None]) -> None:
            """After the node: whether such numbers leave it, and next to which values."""
            with disable_dispatch_modes(), disable_function_modes(), torch.no_grad():
                for each in outgoing:
                    gradient = None if each is None else read_plain(each)
                    if gradient is not None and not origin.leaves and not is_finite(gradient):
                        origin.leaves = True
                        origin.number = name_number(gradient)
                        arrived = [
                            x
                            for each in incoming
                            if each is not None and (x := read_plain(each)) is not None
                        ]
                        inputs, results = list_saved(node)
                        origin.note(gradient, inputs, incoming=arrived, results=results)

        self._handles.append(node.register_hook(look))

    def keep_gradients(self, nodes: Iterable[Any]) -> None:
        """Have nodes keep the gradients that come in until they are done, for `_assign` to read."""
        self._handles += [node.register_hook(_ignore) for node in nodes]

    def _find_record(self, node: Any) -> _Place | None:
        """Return where the operation was called that a node of the graph stands for.

        Threads count their nodes each from zero, so the name must fit as well.
        """
        number = read_sequence_number(node)
        if number is None:
            return None
        words = name_node(str(node.name()))
        threads = dict.fromkeys((threading.get_ident(), self._thread))
        found = [self._records[key] for each in threads if (key := (each, number)) in self._records]
        found.sort(key=lambda record: name_operation(record[0]) != words)
        return found[0][1] if found else None

    # --- In the end -------------------------------------------------------------------------------

    def conclude(self, loss: Tensor) -> NonFiniteOrigin | None:
        """Return the origin of what does harm, or else of a number that does none."""
        with torch.no_grad():
            wrong = [
                each
                for each in self._inventory.parameters
                if (gradient := _read_gradient(each.tensor)) is not None and not is_finite(gradient)
            ]
            reached = [] if is_finite(loss.detach()) else [loss.detach()]
            gradients = (_read_gradient(each.tensor) for each in reversed(wrong))
            reached += [gradient for gradient in gradients if gradient is not None]
            chosen = self._choose(reached)
            if chosen is None:
                return None
            chosen = chosen.after or chosen
            value = float(loss.detach())
        line = chosen.place.line
        return NonFiniteOrigin(
            source=chosen.source,
            op=chosen.op,
            function=chosen.function,
            direction=chosen.direction,
            module=chosen.place.module,
            dtype=chosen.dtype,
            overflow=chosen.overflow,
            shape=chosen.shape,
            count=chosen.count,
            elements=chosen.elements,
            file=chosen.place.file[-1000:],
            line=line,
            code=read_line(chosen.place.file, line),
            loss=Quantity([value]),
            parameters=tuple(each.names[0] for each in wrong[:SHOWN]),
            parameter_count=len(wrong),
            detail=chosen.detail,
            zeroed_by=chosen.zeroed_by,
        )

    def _choose(self, reached: Sequence[Tensor]) -> _Origin | None:
        for tensor in reached:
            origin = self._of_memory.get(find_memory(tensor) or 0)
            if origin is not None:
                return origin
        faults = [each for each in self._origins if each.leaves and not each.is_mask]
        if reached:  # through something that cannot be followed
            return next(iter(faults or self._origins), None)
        # Minus infinity in the forward pass is the logarithm of a mask, or as good as one.
        found = (x for x in faults if x.direction == "backward" or x.number != "-inf")
        return next(found, None)


def _read_gradient(tensor: Tensor) -> Tensor | None:
    return None if tensor.grad is None else read_plain(tensor.grad)


def _ignore(outgoing: Sequence[Tensor | None], incoming: Sequence[Tensor | None]) -> None:
    """Change no gradient."""


_DISTRIBUTIONS = "/torch/distributions/"
"""Where PyTorch keeps its distributions, whose methods are written in Python."""

_ENGINE = "_engine_run_backward"
"""The function of PyTorch that starts a backward pass."""
