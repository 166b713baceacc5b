"""Whether measured remedies work when the network is really trained.

Every unhealthy network of a list is trained as it is, with each of its remedies, and with changes
that the measurement refuted (scikit-learn's digits, 300 steps of SGD, best of four learning rates;
see `agreement.py`). Prints one line per training and the counts. Needs scikit-learn.
"""

from collections import defaultdict

import torch
from agreement import find_best

from chainrule import PRESETS, NetworkSpec, Verdict, find_remedies
from chainrule.training import TRAINED

FURTHER = (
    NetworkSpec(depth=8, activation="sigmoid", init="he"),
    NetworkSpec(depth=25, activation="sigmoid"),
    NetworkSpec(depth=5, activation="relu", init="random"),
    NetworkSpec(depth=15, activation="tanh", init="random"),
    NetworkSpec(depth=15, activation="relu", init="random", weight_std=0.3),
    NetworkSpec(depth=25, activation="gelu"),
    NetworkSpec(depth=50, activation="selu", init="xavier"),
    NetworkSpec(depth=50, activation="gelu", init="he"),
    NetworkSpec(depth=25, activation="silu", init="xavier"),
    NetworkSpec(depth=100, activation="relu", init="pytorch"),
)


def main() -> None:
    """Print the best training accuracy before and after every remedy."""
    torch.set_num_threads(1)
    counts: dict[str, list[float]] = defaultdict(list)
    networks = [p.spec for p in PRESETS.values() if p.verdict is not Verdict.HEALTHY]
    for spec in (*networks, *FURTHER):
        found = find_remedies(spec, 16)
        if found.diagnosis.verdict is Verdict.HEALTHY:
            continue
        before = find_best(spec, "sgd")
        counts["as it is"].append(before)
        print(f"\n{before:6.1%}  {spec.to_command()}: {found.diagnosis.verdict}", flush=True)
        for remedy in found.tried:
            assert remedy.spec is not None
            after = find_best(remedy.spec, "sgd")
            counts[remedy.outcome].append(after)
            print(f"{after:6.1%}    {remedy.outcome:6}  {remedy.title}", flush=True)
    print()
    for outcome, accuracies in counts.items():
        trained = sum(accuracy > TRAINED for accuracy in accuracies)
        print(f"{outcome}: {trained} of {len(accuracies)} trained to more than {TRAINED:.0%}")


if __name__ == "__main__":
    main()
